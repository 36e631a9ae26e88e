// moba-sweep fit: scaling laws of a results.csv, one per group of arms. Groups of too few sizes are left out with a note.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "src/sweep/fit.h"
#include "src/sweep/results.h"

namespace moba::sweep {

struct FitCommand {
  std::string results;
  std::string metric = "eval_loss", flops = "6nd";
  double level = 0.95;
  int samples = 1000;
  bool json = false;
};
ExitCode run_fit(const FitCommand& command);

// Groups in order of first row; rows that are not finished, or have no such loss, are left out.
struct GroupPoints {
  std::string group;
  std::vector<ScalingPoint> points;
};
std::vector<GroupPoints> scaling_points(const CsvTable& table, const std::string& metric, const std::string& flops);
int64_t distinct_sizes(const std::vector<ScalingPoint>& points);
nlohmann::ordered_json to_json(const Fit& fit, bool irreducible);

}  // namespace moba::sweep
