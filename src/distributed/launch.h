// How this process was started: by mpirun or srun as one of several ranks, or by itself.
#pragma once
#include <functional>
#include <string>

namespace moba {

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this host
  std::string by;                      // "mpirun", "srun", ...; empty: started by itself
};

using Environment = std::function<const char*(const char* name)>;  // as getenv
Launch read_launch(const Environment& environment);
Launch read_launch();  // of this process

}  // namespace moba
