#include "src/optim/optimizer.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

using Name = LrScheduleConfig::Name;

TEST(LrSchedule, WarmUpIsLinearAndEndsAtFullRate) {
  for (Name name : {Name::cosine, Name::wsd, Name::linear, Name::constant}) {
    const LrScheduleConfig c{.name = name, .warmup_steps = 4};
    EXPECT_EQ(learning_rate(c, 2.0, 1, 100), 0.5);
    EXPECT_EQ(learning_rate(c, 2.0, 3, 100), 1.5);
    EXPECT_EQ(learning_rate(c, 2.0, 4, 100), 2.0);
  }
}

TEST(LrSchedule, CosineAtItsBorders) {
  const LrScheduleConfig c{.name = Name::cosine, .warmup_steps = 10, .min_lr_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 60, 110), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 35, 110), 0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5)));
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 110, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 500, 110), 0.1);
  EXPECT_EQ(learning_rate({.name = Name::cosine}, 1.0, 1, 1), 0.1) << "a run of one step without warm-up";
}

TEST(LrSchedule, LinearFallsToTheMinimum) {
  const LrScheduleConfig c{.name = Name::linear, .warmup_steps = 10, .min_lr_ratio = 0};
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 35, 110), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 110, 110), 0);
}

TEST(LrSchedule, WsdIsFlatThenFallsOverItsLastShare) {
  const LrScheduleConfig c{.name = Name::wsd, .warmup_steps = 10, .min_lr_ratio = 0.2, .decay_ratio = 0.25};
  EXPECT_EQ(learning_rate(c, 1.0, 75, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 76, 100), 1 - 0.8 / 25);
  EXPECT_DOUBLE_EQ(learning_rate(c, 1.0, 100, 100), 0.2);
  const LrScheduleConfig all{.name = Name::wsd, .warmup_steps = 10, .min_lr_ratio = 0, .decay_ratio = 1};
  EXPECT_DOUBLE_EQ(learning_rate(all, 1.0, 55, 100), 0.5) << "the decay begins after the warm-up";
}

TEST(LrSchedule, ConstantStays) { EXPECT_EQ(learning_rate({.name = Name::constant}, 3.0, 1000, 10), 3.0); }

}  // namespace
}  // namespace moba::test
