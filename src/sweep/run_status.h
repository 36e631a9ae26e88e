// How far a run has come, by what its folder says and nothing else.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/train/recipe.h"

namespace moba::sweep {

enum class RunState : uint8_t { absent, partial, finished };

struct RunStatus {
  RunState state = RunState::absent;
  int64_t step = 0, total_steps = 0;  // step: of the last line of metrics
  double loss = 0, tokens_per_sec = 0;
};

// Finished: metrics reach the last step, the evaluation due there is written, and so is the last checkpoint (where the recipe asks
// for them), with nothing left to do.
RunStatus run_status(const Recipe& recipe);

// Lines of metrics.jsonl; a last line cut short by a kill is left out. Empty if there is no file.
std::vector<nlohmann::json> read_metrics(const std::string& folder);
// Only those in the last 64 KiB of the file.
std::vector<nlohmann::json> recent_metrics(const std::string& folder);

}  // namespace moba::sweep
