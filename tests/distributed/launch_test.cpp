// How a process finds out whether it is one of several ranks.
#include "src/distributed/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/common/check.h"

namespace moba {
namespace {

Launch read(const std::map<std::string, std::string>& variables) {
  return read_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

void expect(const Launch& l, int rank, int size, int local_rank, int local_size, const std::string& by) {
  EXPECT_EQ(l.rank, rank);
  EXPECT_EQ(l.size, size);
  EXPECT_EQ(l.local_rank, local_rank);
  EXPECT_EQ(l.local_size, local_size);
  EXPECT_EQ(l.by, by);
}

TEST(Launch, ByItself) { expect(read({{"PATH", "/bin"}}), 0, 1, 0, 1, ""); }

TEST(Launch, OpenMpi) {
  expect(read({{"OMPI_COMM_WORLD_RANK", "5"},
               {"OMPI_COMM_WORLD_SIZE", "8"},
               {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
               {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}}),
         5, 8, 1, 4, "mpirun");
}

TEST(Launch, Mpich) {
  expect(read({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}}), 1, 2, 1, 2, "mpiexec");
}

TEST(Launch, SrunWithItsPmi) {
  std::map<std::string, std::string> v = {{"SLURM_PROCID", "6"},
                                          {"SLURM_STEP_ID", "0"},
                                          {"SLURM_STEP_NUM_TASKS", "7"},
                                          {"SLURM_LOCALID", "0"},
                                          {"SLURM_NODEID", "3"},
                                          {"SLURM_NTASKS", "7"},
                                          {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                                          {"PMIX_RANK", "6"},
                                          {"PMI_RANK", "6"},
                                          {"PMI_SIZE", "7"}};
  expect(read(v), 6, 7, 0, 1, "srun");
  v["SLURM_NODEID"] = "1";
  v["SLURM_LOCALID"] = "1";
  v["SLURM_PROCID"] = "3";
  expect(read(v), 3, 7, 1, 2, "srun");
}

// The shell of sbatch or salloc is one process, though the allocation has room for more.
TEST(Launch, ShellOfAnAllocation) {
  expect(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}}), 0, 1, 0, 1, "");
  expect(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_STEP_ID", "4294967290"}, {"SLURM_STEP_NUM_TASKS", "1"}}), 0, 1, 0, 1,
         "");
}

TEST(Launch, NonsenseIsAnError) {
  EXPECT_THROW(read({{"OMPI_COMM_WORLD_RANK", "x"}, {"OMPI_COMM_WORLD_SIZE", "2"}}), Error);
  EXPECT_THROW(read({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}}), Error);
}

}  // namespace
}  // namespace moba
