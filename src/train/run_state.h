// Everything a run holds while it trains, and how it gets there: fresh, from weights, or from a checkpoint.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "src/distributed/world.h"
#include "src/train/console.h"
#include "src/train/data_stream.h"
#include "src/train/folder_lock.h"
#include "src/train/metrics.h"
#include "src/train/run_plan.h"
#include "src/train/trainer.h"
#include "src/train/training_step.h"

namespace moba {

struct RunState {
  Recipe recipe;
  Progress progress;
  bool evaluation_due = false;  // the evaluation after this step has not come to its end
  int64_t not_finite_in_a_row = 0;
  double peak_gflops = 0;  // of the step's dtype, all threads, measured at the start
  std::string precision;   // which and why

  World* world = nullptr;                                             // the run's ranks; outlives it
  bool is_root() const { return world->communicator().rank() == 0; }  // rank 0 prints and keeps the folder

  std::unique_ptr<FolderLock> lock;  // rank 0's, on the run's folder
  std::unique_ptr<RunPlan> plan;
  std::unique_ptr<DataStream> data;
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<OptimizerParameter> parameters;
  std::unique_ptr<DataParallel> parallel;
  std::unique_ptr<MetricsLog> metrics;  // rank 0's
  nlohmann::ordered_json fingerprint;   // of the data
  nlohmann::json settings;              // of the recipe
  nlohmann::json init_from;             // path and hash of the weights the run began with, as they were then; null: none
  std::string tokenizer_json;
  int32_t bos_token_id = -1, eos_token_id = -1;
};

// Checks everything before anything is written, then makes or re-opens the run's folder. Without a model if the run is finished
// already (which it says).
// Collective, as is save_run.
RunState open_run(Recipe recipe, const TrainOptions& options, World& world, Console& console);

// Writes a checkpoint of the state; says where.
void save_run(RunState& run, Console& console);

}  // namespace moba
