// What loops over items promise to those who plan scratch for them.
#include "kernels/common/threads.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

namespace moba::test {
namespace {

TEST(Threads, EveryItemRunsOnceOnAThreadBelowTheNumberOfItems) {
  const int before = num_threads();
  set_num_threads(8);
  constexpr int kItems = 3;
  for (int round = 0; round < 300; ++round) {
    std::array<std::atomic<int>, kItems> runs{};
    std::atomic<int> highest{0};
    parallel_items(kItems, [&](int64_t item, int thread) {
      ++runs[static_cast<size_t>(item)];
      if (thread > highest) highest = thread;
      std::this_thread::sleep_for(std::chrono::microseconds(20));  // time for the other threads to come
    });
    for (const auto& count : runs) ASSERT_EQ(count, 1);
    ASSERT_LT(highest, kItems) << "in round " << round;
  }
  set_num_threads(before);
}

}  // namespace
}  // namespace moba::test
