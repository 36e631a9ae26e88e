// The time that a sweep still takes.
#include "src/sweep/remaining.h"

#include <gtest/gtest.h>

namespace moba::sweep {
namespace {

TEST(Remaining, MeasuredSpeedTakesOverFromThePrediction) {
  EXPECT_EQ(remaining_seconds({0, 1000}, 100, 7), 7);    // nothing done yet, an evaluation perhaps
  EXPECT_EQ(remaining_seconds({1, 999}, 5, 7), 7);       // too little to tell
  EXPECT_EQ(remaining_seconds({1, 999}, 30, 7), 29970);  // 1 in 30 s
  EXPECT_EQ(remaining_seconds({20, 980}, 5, 7), 245);    // 20 in 5 s
  EXPECT_EQ(remaining_seconds({1000, 0}, 5, 7), 0);
}

TEST(Remaining, SuspendedTimeIsNotCounted) {
  using std::chrono::seconds;
  const AwakeTime::Time start{};
  AwakeTime awake(start);
  EXPECT_EQ(awake.tick(start + seconds(1)), 1);
  EXPECT_EQ(awake.tick(start + seconds(3)), 3);
  EXPECT_EQ(awake.tick(start + seconds(3600)), 3);
  EXPECT_EQ(awake.tick(start + seconds(3601)), 4);
}

}  // namespace
}  // namespace moba::sweep
