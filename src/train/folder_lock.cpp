#include "src/train/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "kernels/common/check.h"
#include "src/distributed/connection.h"
#include "src/train/signals.h"

namespace moba {
namespace {

constexpr const char* kName = ".lock";
constexpr useconds_t kPollMicroseconds = 50000;

struct Holder {
  pid_t pid = 0;
  std::string host;
  bool here() const { return host == host_name(); }
  // Of another host nothing is known; it counts as alive as long as the lock is held.
  bool alive() const { return pid > 0 && (!here() || ::kill(pid, 0) == 0 || errno == EPERM); }
};

Holder read_holder(int fd) {
  std::array<char, 300> text{};
  Holder holder;
  if (::pread(fd, text.data(), text.size() - 1, 0) > 0) std::istringstream(text.data()) >> holder.pid >> holder.host;
  return holder;
}

void say_once(bool& said, const std::string& text) {
  if (!said) std::fprintf(stderr, "%s\n", text.c_str());
  said = true;
}

}  // namespace

bool is_lock_file(const std::string& name) { return name == kName; }

FolderLock::FolderLock(const std::string& folder, const FolderLockOptions& options) {
  const std::string path = folder + "/" + kName;
  const int inherit = options.inherited ? 0 : O_CLOEXEC;
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | inherit, 0666);
  if (fd_ < 0 && errno == EACCES) fd_ = ::open(path.c_str(), O_RDONLY | inherit);  // another user's
  if (fd_ < 0) {
    if (::access(folder.c_str(), W_OK) != 0) return;  // nothing can be written there; who tries says why
    throw Error(fmt::format("cannot open {}: {}", path, std::strerror(errno)), ExitCode::io);
  }
  const auto begin = std::chrono::steady_clock::now();
  bool said = false;
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      say_once(said, fmt::format("{}: no lock ({}); make sure that nothing else writes there", folder, std::strerror(errno)));
      return;
    }
    const Holder holder = read_holder(fd_);
    const bool patient = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < options.patience_seconds;
    // Only children outlive the process that took the lock.
    if (!patient && (holder.alive() || !options.inherited)) {
      ::close(fd_);
      const std::string where = holder.here() ? "" : " on " + holder.host;
      throw Error(fmt::format("{}: another {} (process {}{}) is at work there; wait for it, or stop it with: kill {}", folder,
                              options.program, holder.pid, where, holder.pid));
    }
    if (SignalWatch::stop_requested()) {
      ::close(fd_);
      throw Error("stopped by a signal while waiting", ExitCode::preempted);
    }
    say_once(said, fmt::format("waiting for processes that still write into {}", folder));
    ::usleep(kPollMicroseconds);
  }
  const std::string mine = fmt::format("{} {}\n", ::getpid(), host_name());
  // Whoever meets the lock without a name in it waits, so a full disk costs no more than the name in a message.
  if (::ftruncate(fd_, 0) == 0) [[maybe_unused]]
    const ssize_t n = ::pwrite(fd_, mine.data(), mine.size(), 0);
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace moba
