// A whole run: from a checked recipe to its finished folder.
#pragma once
#include <string>

#include "kernels/common/check.h"
#include "src/distributed/launch.h"
#include "src/train/recipe.h"

namespace moba {

struct TrainOptions {
  std::string resume = "auto";  // auto, never or a checkpoint's folder
  std::string device = "auto";  // auto, cpu, cuda
  std::string command_line;     // for run.json
  int64_t profiled_steps = 0;   // after the first: taken apart, printed as a table, written as profile.json
  Launch launch;                // how this process was started
};

// Error unless as many processes were started as the recipe says: processes that know nothing of each other would all train into one
// folder.
void check_started_processes(const Recipe& recipe, const Launch& launch);

// Prints as it goes (rank 0 alone). done, numeric (a loss or gradient was not finite) or preempted (stopped by a signal); throws Error
// otherwise.
ExitCode train(Recipe recipe, const TrainOptions& options);

}  // namespace moba
