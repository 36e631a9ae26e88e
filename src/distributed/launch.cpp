#include "src/distributed/launch.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "kernels/common/check.h"

namespace moba {
namespace {

std::optional<int> number(const Environment& environment, const char* name) {
  const char* text = environment(name);
  if (!text) return std::nullopt;
  int value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  MOBA_CHECK(error == std::errc() && stop == end && value >= 0, "environment variable {}={} is not a whole number: unset it", name, text);
  return value;
}

// SLURM's "2(x3),1": tasks of each node. Entry `node`, or 1.
int tasks_of_node(const char* list, int node) {
  while (list && *list) {
    char* end = nullptr;
    const int tasks = static_cast<int>(std::strtol(list, &end, 10));
    int times = 1;
    if (std::strncmp(end, "(x", 2) == 0) {
      times = static_cast<int>(std::strtol(end + 2, &end, 10));
      if (*end == ')') ++end;
    }
    if (node < times) return tasks;
    node -= times;
    list = *end == ',' ? end + 1 : nullptr;
  }
  return 1;
}

std::optional<Launch> read(const Environment& environment, const char* by, const char* rank, const char* size, const char* local_rank,
                           const char* local_size) {
  const auto r = number(environment, rank), n = number(environment, size);
  if (!r || !n) return std::nullopt;
  MOBA_CHECK(*n >= 1 && *r < *n, "{}={} and {}={} do not fit: start with mpirun or srun, or unset both", rank, *r, size, *n);
  return Launch{*r, *n, number(environment, local_rank).value_or(0), number(environment, local_size).value_or(1), by};
}

}  // namespace

Launch read_launch(const Environment& environment) {
  if (auto l = read(environment, "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                    "OMPI_COMM_WORLD_LOCAL_SIZE"))
    return *l;
  // srun before PMI: srun sets PMI_* or PMIX_* as well. A shell of sbatch or salloc has SLURM_PROCID=0 too, but no step of several tasks.
  if (environment("SLURM_STEP_ID") && number(environment, "SLURM_STEP_NUM_TASKS").value_or(1) > 1) {
    if (auto l = read(environment, "srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")) {
      l->local_size = tasks_of_node(environment("SLURM_STEP_TASKS_PER_NODE"), number(environment, "SLURM_NODEID").value_or(0));
      return *l;
    }
  }
  if (auto l = read(environment, "mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")) return *l;
  if (auto l = read(environment, "mpiexec", "PMIX_RANK", "PMIX_SIZE", "PMIX_LOCAL_RANK", "PMIX_LOCAL_SIZE")) return *l;
  return {};
}

Launch read_launch() {
  return read_launch([](const char* name) { return static_cast<const char*>(std::getenv(name)); });
}

}  // namespace moba
