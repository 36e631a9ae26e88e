// --dry-run: what a recipe would take, without training.
#pragma once
#include <string>

#include "kernels/common/check.h"
#include "src/train/recipe.h"
#include "src/train/run_plan.h"
#include "src/train/trainer.h"

namespace moba {

struct RunCost {
  int64_t parameters = 0, embedding_parameters = 0;
  int64_t steps = 0, tokens = 0;
  double flops_6nd = 0;          // 6 x parameters without embeddings x tokens
  double flops = 0;              // of all matrices and the attention actually computed
  int64_t memory_bytes = 0;      // predicted peak of a process
  int64_t sent_bytes = 0;        // by a rank, each step
  int64_t checkpoint_bytes = 0;  // one checkpoint
  int64_t kept_checkpoints = 0;
  double seconds = 0;  // of the steps, from measured_peak and kAssumedMfu
  double peak_gflops = 0;
};
// Share of the measured peak that steps of models of this kind reach.
inline constexpr double kAssumedMfu = 0.5;

// `recipe` must be resolved (vocabulary, precision, micro-batch).
RunCost predict_cost(const Recipe& recipe, DType dtype);

// Time of all steps of the plan on a machine of this peak.
double predicted_seconds(const Recipe& recipe, const RunPlan& plan, double peak_gflops);

// Prints the prediction. What is missing is printed after it and gives exit code usage; where nothing is, Error if the files do not do.
ExitCode dry_run(Recipe recipe, const TrainOptions& options);

// For runs above seven days one sentence with the time and the recipe to try instead, else "".
std::string long_run_warning(const Recipe& recipe, double seconds);

}  // namespace moba
