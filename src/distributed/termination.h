// SIGTERM around a run of several ranks: mpirun sends it to the others when one has died, often before the reason reached them.
#pragma once
#include <csignal>
#include <string>

#include "kernels/common/check.h"

namespace moba {

// While it lives SIGTERM writes the message and ends the process with that code: nobody watches yet. One at a time.
class StartGuard {
 public:
  StartGuard(std::string message, ExitCode code);
  ~StartGuard();
  StartGuard(const StartGuard&) = delete;

 private:
  struct sigaction before_ {};
};

// Where nobody handles SIGTERM: tells the watchdog, which obeys half a second later if no loss explains the signal. One at a time.
class DeferTermination {
 public:
  explicit DeferTermination(int wake_fd);
  ~DeferTermination();
  DeferTermination(const DeferTermination&) = delete;

 private:
  bool installed_ = false;
};

}  // namespace moba
