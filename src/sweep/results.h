// results.csv: one row per arm and seed, from the runs' own files.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/sweep/predict.h"
#include "src/sweep/record.h"

namespace moba::sweep {

struct Result {
  std::string arm, group, run, folder;
  uint64_t seed = 0;
  std::string status;                                          // finished, partial, failed, absent
  std::string ended;                                           // of failed: why
  std::vector<std::pair<std::string, std::string>> overrides;  // of the arm: key or option, value
  int64_t steps = 0, tokens = 0, parameters = 0;               // parameters: without embeddings
  std::optional<double> eval_loss, trailing_loss, train_loss;  // of the last evaluation; mean of the last 50 steps
  std::vector<double> position_loss;
  double tokens_per_sec = 0;                       // median over steps
  double flops_6nd = 0, flops_with_attention = 0;  // of the tokens seen
  std::string weights_hash, git_commit, precision;
  std::string machine;  // of the run's last start

  std::optional<double> metric(const std::string& name) const;
};
inline constexpr int64_t kTrainLossSteps = 50;

std::vector<Result> collect_results(const Sweep& sweep, const Record& record, const std::vector<RunCost>& costs);
// Appears under its name only when complete.
void write_results(const std::string& path, const std::vector<Result>& results);

// A table as text: every cell by row and column name. Error(corrupt_input) if the file is none.
struct CsvTable {
  std::string path;
  std::vector<std::string> columns;
  std::vector<std::map<std::string, std::string>> rows;
};
CsvTable read_csv(const std::string& path);

}  // namespace moba::sweep
