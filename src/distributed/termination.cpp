#include "src/distributed/termination.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "kernels/common/check.h"
#include "src/distributed/watchdog.h"

namespace moba {
namespace {

// Handlers reach nothing else. Both are set before the handler is installed.
std::string start_message;
ExitCode start_code;
std::atomic<int> watchdog_fd{-1};

void on_start(int) {
  [[maybe_unused]] const ssize_t n = ::write(2, start_message.data(), start_message.size());
  _exit(static_cast<int>(start_code));
}

void on_run(int) {
  const int saved = errno;
  const uint64_t value = Watchdog::kTerminated;
  [[maybe_unused]] const ssize_t n = ::write(watchdog_fd, &value, sizeof value);
  errno = saved;
}

}  // namespace

StartGuard::StartGuard(std::string message, ExitCode code) {
  start_message = std::move(message) + "\n";
  start_code = code;
  struct sigaction action {};
  action.sa_handler = on_start;
  sigaction(SIGTERM, &action, &before_);
}
StartGuard::~StartGuard() { sigaction(SIGTERM, &before_, nullptr); }

DeferTermination::DeferTermination(int wake_fd) {
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  if (now.sa_handler != SIG_DFL) return;
  watchdog_fd = wake_fd;
  struct sigaction action {};
  action.sa_handler = on_run;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  installed_ = true;
}

DeferTermination::~DeferTermination() {
  if (!installed_) return;
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  if (now.sa_handler == on_run) signal(SIGTERM, SIG_DFL);
}

}  // namespace moba
