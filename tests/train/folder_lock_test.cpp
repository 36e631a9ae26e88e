// Two processes never write into one run folder.
#include "src/train/folder_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <optional>

#include "kernels/common/check.h"
#include "tests/interop/scratch_folder.h"

namespace moba::test {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

TEST(FolderLock, SecondHolderIsRefusedWithTheNameOfTheFirst) {
  const ScratchFolder scratch;
  std::optional<FolderLock> first(std::in_place, scratch.root(), FolderLockOptions{.program = "moba-train"});
  const auto begin = Clock::now();
  try {
    const FolderLock second(scratch.root(), {.program = "moba-train", .patience_seconds = 0.2});
    FAIL() << "two hold it";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("another moba-train (process " + std::to_string(::getpid()) + ")"), std::string::npos) << e.what();
  }
  EXPECT_GE(since(begin), 0.2);
  first.reset();
  const FolderLock third(scratch.root(), {.program = "moba-train"});
}

// What a killed sweep leaves: it is dead, its child holds the lock for a while.
TEST(FolderLock, WaitsForTheChildOfADeadHolder) {
  constexpr double kChildSeconds = 0.5;
  const ScratchFolder scratch;
  const pid_t holder = ::fork();
  if (holder == 0) {
    const FolderLock lock(scratch.root(), {.program = "moba-sweep", .inherited = true});
    if (::fork() == 0) ::usleep(static_cast<useconds_t>(1e6 * kChildSeconds));
    ::_exit(0);
  }
  const auto begin = Clock::now();
  ::waitpid(holder, nullptr, 0);
  const FolderLock lock(scratch.root(), {.program = "moba-sweep", .inherited = true});
  EXPECT_GE(since(begin), 0.9 * kChildSeconds);
}

TEST(FolderLock, AFolderThatCannotBeWrittenIsNoError) {
  const ScratchFolder scratch;
  const FolderLock lock(scratch.root() + "/missing", {.program = "moba-train"});
  EXPECT_FALSE(std::filesystem::exists(scratch.root() + "/missing"));
}

}  // namespace
}  // namespace moba::test
