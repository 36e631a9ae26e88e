// moba-sweep SWEEP.yaml, from the command line's words to the finished folder.
#pragma once
#include <string>
#include <vector>

#include "kernels/common/check.h"

namespace moba::sweep {

struct SweepOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::vector<std::string> only;  // arms to run; empty: all
  int jobs = 1;
  bool dry_run = false, report_only = false;
  std::string command_line;
};

ExitCode run_sweep(const SweepOptions& options);

}  // namespace moba::sweep
