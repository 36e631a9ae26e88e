// Child processes of a sweep.
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

namespace moba::sweep {

struct Child {
  pid_t pid = 0;
  // `environment`: NAME=VALUE to add. Output of both kinds is appended to `log`. In a process group of its own, so that Ctrl-C reaches
  // it once, through the sweep; if the sweep dies it is told to stop (SIGTERM). Error(io) if it cannot be started.
  static Child start(const std::string& program, const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                     const std::string& log);
  bool ended(int& status) const;  // does not wait; `status` as of waitpid
  void stop() const;              // SIGTERM
};

std::string program_beside_this(const std::string& name);  // path of another program of the same build; Error if it is not there
std::string last_lines(const std::string& path, int count);

}  // namespace moba::sweep
