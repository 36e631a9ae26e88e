// Runs what is left of a sweep, `jobs` trainings at a time.
#pragma once
#include <functional>

#include "kernels/common/check.h"
#include "src/sweep/predict.h"

namespace moba::sweep {

struct RunnerOptions {
  int jobs = 1;
  // Why a run ended that is not finished; "" as soon as that is over.
  std::function<void(const std::string& run, const std::string& why)> note_end;
  std::function<void()> publish;  // results and report, after every run that ended
};

// done; preempted after SIGTERM or SIGINT (children were told to save and have ended); else the code of the first run that failed.
// A run that fails does not keep the others from running, unless the disk is full.
ExitCode run_all(Sweep& sweep, const Prediction& prediction, const RunnerOptions& options);

}  // namespace moba::sweep
