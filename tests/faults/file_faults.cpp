// Preloaded into a program, counts its changes to files below a folder and makes one of them go wrong:
//
//   MOBA_FAULT_ROOT=DIR   only operations on paths below DIR count (open for writing, write, fsync, rename, symlink, mkdir,
//                         unlink, rmdir, ftruncate)
//   MOBA_FAULT_AT=n       the n-th of them (from 1) fails
//   MOBA_FAULT_HOW=kill   the process dies before it · torn: a write does half of its work first · enospc: it and every later
//                         write fail with "no space left on device"
//
// It also watches the order that survives a power cut: a file renamed, or standing in a folder that is renamed, must have been
// fsynced after its last write, and so must ROOT/metrics.jsonl when a step folder appears in ROOT/checkpoints; otherwise the
// process ends with status 97.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace {

constexpr int kUnsyncedRename = 97;

template <class F>
F* next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string path_of(int fd) {
  char target[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t n = ::readlink(link.c_str(), target, sizeof target);
  return n > 0 ? std::string(target, static_cast<size_t>(n)) : "";
}

std::string path_at(int dir, const char* path) {
  if (path[0] == '/') return path;
  if (dir != AT_FDCWD) return path_of(dir) + "/" + path;
  char here[PATH_MAX];
  return std::string(::getcwd(here, sizeof here) ? here : "") + "/" + path;
}

enum class Verdict { go_on, tear, no_space };

class Faults {
 public:
  // Called before every operation; does not return when the process is to die now.
  Verdict before(const std::string& path, bool is_write) {
    if (root_.empty() || path.compare(0, root_.size(), root_) != 0) return Verdict::go_on;
    const std::lock_guard lock(mutex_);
    ++count_;
    if (how_ == "enospc") return is_write && at_ > 0 && count_ >= at_ ? Verdict::no_space : Verdict::go_on;
    if (count_ != at_) return Verdict::go_on;
    if (how_ == "torn" && is_write) return Verdict::tear;
    die();
  }
  [[noreturn]] static void die() {
    ::kill(::getpid(), SIGKILL);
    while (true) ::pause();
  }
  void wrote(const std::string& path) {
    const std::lock_guard lock(mutex_);
    unsynced_.insert(path);
  }
  void synced(const std::string& path) {
    const std::lock_guard lock(mutex_);
    unsynced_.erase(path);
    synced_size_[path] = size_of(path);
  }
  void removed(const std::string& path) {
    const std::lock_guard lock(mutex_);
    unsynced_.erase(path);
  }
  void renamed(const std::string& from, const std::string& to) {
    const std::lock_guard lock(mutex_);
    if (const auto found = synced_size_.find(from); found != synced_size_.end()) synced_size_[to] = found->second;
    // Lines are written by stdio, whose writes don't come by here, so the size tells.
    const std::string metrics = root_ + "/metrics.jsonl", steps = root_ + "/checkpoints/step-";
    if (!root_.empty() && to.compare(0, steps.size(), steps) == 0 && size_of(metrics) != synced_size_[metrics]) {
      std::fprintf(stderr, "file_faults: %s appears, but %s was not fsynced after its last line\n", to.c_str(), metrics.c_str());
      ::_exit(kUnsyncedRename);
    }
    for (const std::string& path : unsynced_) {
      if (path != from && path.compare(0, from.size() + 1, from + "/") != 0) continue;
      std::fprintf(stderr, "file_faults: %s is renamed, but %s was not fsynced after its last write\n", from.c_str(), path.c_str());
      ::_exit(kUnsyncedRename);
    }
  }

 private:
  static off_t size_of(const std::string& path) {
    struct stat info;
    return ::stat(path.c_str(), &info) == 0 ? info.st_size : 0;
  }

  std::string root_ = environment("MOBA_FAULT_ROOT");
  std::string how_ = environment("MOBA_FAULT_HOW");
  long at_ = std::atol(environment("MOBA_FAULT_AT").c_str());
  long count_ = 0;
  std::mutex mutex_;
  std::set<std::string> unsynced_;
  std::map<std::string, off_t> synced_size_;
};

Faults& faults() {
  static auto* instance = new Faults;  // outlives every destructor that writes
  return *instance;
}

int open_at(int dir, const char* path, int flags, mode_t mode) {
  if (flags & (O_WRONLY | O_RDWR | O_CREAT)) faults().before(path_at(dir, path), false);
  static auto* real = next<int(int, const char*, int, ...)>("openat");
  return real(dir, path, flags, mode);
}

mode_t mode_argument(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

int rename_at(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
  faults().before(path_at(to_dir, to), false);
  faults().renamed(path_at(from_dir, from), path_at(to_dir, to));
  static auto* real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return real(from_dir, from, to_dir, to, flags);
}

int unlink_at(int dir, const char* path, int flags) {
  faults().before(path_at(dir, path), false);
  faults().removed(path_at(dir, path));
  static auto* real = next<int(int, const char*, int)>("unlinkat");
  return real(dir, path, flags);
}

}  // namespace

extern "C" {

#define MOBA_OPEN(name, dir_parameter, dir)                  \
  int name(dir_parameter const char* path, int flags, ...) { \
    va_list list;                                            \
    va_start(list, flags);                                   \
    const mode_t mode = mode_argument(flags, list);          \
    va_end(list);                                            \
    return open_at(dir, path, flags, mode);                  \
  }
#define MOBA_COMMA ,
MOBA_OPEN(open, , AT_FDCWD)
MOBA_OPEN(open64, , AT_FDCWD)
MOBA_OPEN(openat, int dir MOBA_COMMA, dir)
MOBA_OPEN(openat64, int dir MOBA_COMMA, dir)

ssize_t write(int fd, const void* data, size_t bytes) {
  static auto* real = next<ssize_t(int, const void*, size_t)>("write");
  const std::string path = path_of(fd);
  switch (faults().before(path, true)) {
    case Verdict::go_on: break;
    case Verdict::tear: real(fd, data, bytes / 2); Faults::die();
    case Verdict::no_space: errno = ENOSPC; return -1;
  }
  faults().wrote(path);
  return real(fd, data, bytes);
}

int fsync(int fd) {
  static auto* real = next<int(int)>("fsync");
  const std::string path = path_of(fd);
  faults().before(path, false);
  faults().synced(path);
  return real(fd);
}

int ftruncate(int fd, off_t size) {
  static auto* real = next<int(int, off_t)>("ftruncate");
  faults().before(path_of(fd), false);
  return real(fd, size);
}

int rename(const char* from, const char* to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char* from, int to_dir, const char* to) { return rename_at(from_dir, from, to_dir, to, 0); }
int renameat2(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
  return rename_at(from_dir, from, to_dir, to, flags);
}

int symlink(const char* target, const char* path) {
  static auto* real = next<int(const char*, const char*)>("symlink");
  faults().before(path_at(AT_FDCWD, path), false);
  return real(target, path);
}

int mkdir(const char* path, mode_t mode) {
  static auto* real = next<int(const char*, mode_t)>("mkdir");
  faults().before(path_at(AT_FDCWD, path), false);
  return real(path, mode);
}

int unlink(const char* path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char* path, int flags) { return unlink_at(dir, path, flags); }
int rmdir(const char* path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char* path) {
  struct stat info;
  return unlink_at(AT_FDCWD, path, ::lstat(path, &info) == 0 && S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0);
}

}  // extern "C"
