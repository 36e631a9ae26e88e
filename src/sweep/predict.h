// What a sweep will take: time, memory and disk of what is still to do, before anything starts.
#pragma once
#include <string>
#include <vector>

#include "src/sweep/arm_run.h"
#include "src/sweep/run_status.h"
#include "src/train/dry_run.h"

namespace moba::sweep {

struct Prediction {
  std::vector<RunCost> costs;        // of each run, whole
  std::vector<RunStatus> statuses;   // of each run
  std::vector<double> seconds_left;  // of each run
  double seconds = 0;                // of all that is left to do; the machine is shared, so jobs do not change it
  int64_t disk_bytes = 0;            // of all checkpoints still to be written
  int64_t memory_bytes = 0;          // of the largest `jobs` processes together
};

Prediction predict(const Sweep& sweep, int jobs);
// What is left now; costs stay.
void refresh_statuses(const Sweep& sweep, int jobs, Prediction& prediction);
std::string prediction_table(const Sweep& sweep, const Prediction& prediction, int jobs);

// Error(io) or Error(usage) if disk or memory will not do.
void check_resources(const Sweep& sweep, const Prediction& prediction, int jobs);

}  // namespace moba::sweep
