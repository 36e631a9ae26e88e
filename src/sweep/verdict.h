// Claims against results: holds, does not hold, or not resolvable at this scale.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/sweep/results.h"

namespace moba::sweep {

enum class Outcome : uint8_t { holds, fails, unresolved, not_run, not_finished };

struct Verdict {
  Claim claim;
  Outcome outcome = Outcome::unresolved;
  std::string text;                    // one sentence with the figures
  std::vector<double> differences;     // per seed: arm - reference; falls: slope per arm; no_spike: jump in standard deviations
  double mean = 0, low = 0, high = 0;  // mean and one-sided bounds at the confidence asked for
  double detectable = 0;               // an effect of this size shows itself with these seeds in kPower of all cases
  std::string spread;                  // own or pooled; "" where there is none
};
// "holds", "does not hold", "not resolvable at this scale", "not run", "not finished"
const char* outcome_text(Outcome outcome);
inline constexpr double kPower = 0.8;

std::vector<Verdict> judge(const Margins& margins, const std::vector<Result>& results);
nlohmann::ordered_json to_json(const Verdict& verdict);

// The jump at a change of attention, in standard deviations of the step loss before it: the largest over all changes of the run.
// None if there is no change with `steps` steps on both sides.
struct StepLoss {
  double loss = 0;
  std::string attention;
};
std::optional<double> spike(const std::vector<StepLoss>& steps, int64_t window);

}  // namespace moba::sweep
