#include "src/sweep/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>

#include "kernels/common/check.h"

extern char** environ;

namespace moba::sweep {
namespace {

constexpr int kCannotExecute = 127;

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& t : texts) out.push_back(const_cast<char*>(t.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

Child Child::start(const std::string& program, const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                   const std::string& log) {
  std::vector<std::string> argv = {program};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  std::vector<std::string> env = environment;
  for (char** e = environ; *e; ++e) {
    const std::string name(*e, std::strcspn(*e, "=") + 1);
    bool replaced = false;
    for (const std::string& added : environment) replaced |= added.starts_with(name);
    if (!replaced) env.emplace_back(*e);
  }
  // All memory is taken before fork: afterwards only calls that are safe in a child of a process with threads.
  const std::vector<char*> argv_pointers = pointers(argv), env_pointers = pointers(env);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) throw Error(fmt::format("cannot open {}: {}", log, std::strerror(errno)), ExitCode::io);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(kCannotExecute);  // the sweep died in between
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::execve(program.c_str(), argv_pointers.data(), env_pointers.data());
    ::_exit(kCannotExecute);
  }
  const int why = errno;
  ::close(out);
  if (pid < 0) throw Error(fmt::format("cannot start {}: {}", program, std::strerror(why)), ExitCode::io);
  return {pid};
}

bool Child::ended(int& status) const { return ::waitpid(pid, &status, WNOHANG) == pid; }

void Child::stop() const { ::kill(pid, SIGTERM); }

std::string program_beside_this(const std::string& name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string path = (self.parent_path() / name).string();
  MOBA_CHECK(!error && ::access(path.c_str(), X_OK) == 0, "{} is not there; build it: cmake --build --preset release --target {}", path,
             name);
  return path;
}

std::string last_lines(const std::string& path, int count) {
  std::ifstream file(path);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(line);
    if (lines.size() > static_cast<size_t>(count)) lines.pop_front();
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

}  // namespace moba::sweep
