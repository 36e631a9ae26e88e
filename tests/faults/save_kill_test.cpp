// A save that is killed at each of its file operations, or runs out of disk there: the previous or the new checkpoint is whole,
// and the next save succeeds and leaves nothing behind.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "tests/faults/victim_model.h"
#include "tests/interop/scratch_folder.h"
#include "tests/train/train_support.h"

extern char** environ;

namespace moba::test {
namespace {

namespace fs = std::filesystem;

constexpr int kMostOperations = 1000;

struct Save {
  int64_t step, seed;  // the seed decides the weights
  int keep_last;
};

// fsync costs nothing in a folder in memory, and the order of operations is the same.
fs::path scratch_parent() { return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path(); }

// Wait status of a program; fault_at 0: undisturbed.
int run_watched(std::vector<std::string> arguments, const std::string& run, int fault_at, const std::string& how) {
  const std::string tests = MOBA_TEST_DIR;
  std::vector<std::string> variables = {"OMP_NUM_THREADS=1", "LD_PRELOAD=" + tests + "/libmoba_file_faults.so", "MOBA_FAULT_ROOT=" + run,
                                        "MOBA_FAULT_AT=" + std::to_string(fault_at), "MOBA_FAULT_HOW=" + how};
  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> p;
    for (std::string& s : strings) p.push_back(s.data());
    p.push_back(nullptr);
    return p;
  };
  pid_t pid = 0;
  if (posix_spawn(&pid, arguments[0].c_str(), nullptr, nullptr, pointers(arguments).data(), pointers(variables).data()) != 0) return -1;
  int status = -1;
  ::waitpid(pid, &status, 0);
  return status;
}

int run_victim(const std::string& run, const Save& save, int fault_at, const std::string& how) {
  const std::string tests = MOBA_TEST_DIR;
  return run_watched(
      {tests + "/moba-save-victim", run, std::to_string(save.step), std::to_string(save.seed), std::to_string(save.keep_last)}, run,
      fault_at, how);
}

bool exited_with(int status, ExitCode code) { return WIFEXITED(status) && WEXITSTATUS(status) == static_cast<int>(code); }
bool killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

// The newest checkpoint of the run must be the model of one of the seeds, in every byte; returns that seed.
int64_t seed_of_newest(const std::string& run, std::initializer_list<int64_t> seeds) {
  const auto newest = newest_checkpoint(run, [](const std::string& message) { ADD_FAILURE() << message; });
  if (!newest) {
    ADD_FAILURE() << "no checkpoint left";
    return -1;
  }
  VictimModel loaded(99);
  load_checkpoint(*newest, loaded.transformer, loaded.optimizer.get());
  for (int64_t seed : seeds)
    if (loaded.bytes() == VictimModel(seed).bytes()) return seed;
  ADD_FAILURE() << *newest << " is a mixture";
  return -1;
}

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

// `latest` exists from the first save on and always points to a whole checkpoint.
void expect_latest_is_whole(const std::string& run) {
  const std::string latest = run + "/checkpoints/latest";
  ASSERT_TRUE(fs::exists(latest));
  EXPECT_NO_THROW(verify_checkpoint(fs::canonical(latest).string()));
}

// Lets the fault happen at every operation of `next` after an undisturbed `first`; returns the number of operations.
int disturb_every_operation(const Save& first, const Save& next, const std::string& how) {
  ScratchFolder prepared(scratch_parent());
  EXPECT_TRUE(exited_with(run_victim(prepared.root(), first, 0, "kill"), ExitCode::done));
  int64_t before = first.seed;
  for (int at = 1; at < kMostOperations; ++at) {
    ScratchFolder run(scratch_parent());
    fs::copy(prepared.root(), run.root(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    const int status = run_victim(run.root(), next, at, how);
    const int64_t seed = seed_of_newest(run.root(), {first.seed, next.seed});
    expect_latest_is_whole(run.root());
    if (exited_with(status, ExitCode::done)) {
      EXPECT_EQ(seed, next.seed);
      EXPECT_EQ(before, next.seed) << "the last operations come after the new checkpoint counts";
      return at - 1;
    }
    EXPECT_TRUE(killed(status)) << "operation " << at << ", status " << status;
    EXPECT_FALSE(before == next.seed && seed == first.seed) << "operation " << at << ": the new checkpoint was there and is gone";
    before = seed;
    if (at % 8 != 1) continue;  // the cleaning save is the same code each time
    EXPECT_TRUE(exited_with(run_victim(run.root(), {next.step + 1, 7, 1}, 0, "kill"), ExitCode::done));
    EXPECT_EQ(names_in(run.path("checkpoints")), (std::set<std::string>{"latest", fmt::format("step-{:08}", next.step + 1)}));
    EXPECT_EQ(seed_of_newest(run.root(), {7}), 7);
    if (::testing::Test::HasFailure()) return at;
  }
  ADD_FAILURE() << "more than " << kMostOperations << " operations";
  return kMostOperations;
}

TEST(SaveKill, BesideTheCheckpointBefore) {
  const int operations = disturb_every_operation({10, 1, 1}, {20, 2, 1}, "kill");
  std::printf("%d file operations, each killed once\n", operations);
  EXPECT_GT(operations, 30);
}

TEST(SaveKill, OverACheckpointOfTheSameStep) { EXPECT_GT(disturb_every_operation({10, 1, 2}, {10, 2, 2}, "kill"), 30); }

TEST(SaveKill, InTheMiddleOfWrites) { EXPECT_GT(disturb_every_operation({10, 1, 2}, {20, 2, 2}, "torn"), 30); }

// Every write fails from some operation on.
TEST(SaveKill, DiskFull) {
  ScratchFolder run(scratch_parent());
  ASSERT_TRUE(exited_with(run_victim(run.root(), {10, 1, 2}, 0, "kill"), ExitCode::done));
  for (int at : {1, 3, 7, 12, 20}) {
    const int status = run_victim(run.root(), {20, 2, 2}, at, "enospc");
    EXPECT_TRUE(exited_with(status, ExitCode::io)) << status;
    EXPECT_EQ(names_in(run.path("checkpoints")), (std::set<std::string>{"latest", "step-00000010"}));
    EXPECT_EQ(seed_of_newest(run.root(), {1, 2}), 1);
    expect_latest_is_whole(run.root());
  }
}

// The library ends the program if a step folder appears before the metrics up to it are on disk.
TEST(PowerCut, MetricsAreOnDiskBeforeTheirCheckpointAppears) {
  const TrainFolder folder;
  const std::string program = std::string(MOBA_BIN_DIR) + "/moba-train";
  EXPECT_TRUE(exited_with(run_watched({program, folder.path("tiny.yaml")}, folder.path("runs/tiny"), 0, "kill"), ExitCode::done));
  EXPECT_TRUE(fs::exists(folder.path("runs/tiny/checkpoints/step-00000020")));
}

}  // namespace
}  // namespace moba::test
