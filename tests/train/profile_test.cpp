// How a profile adds up.
#include "src/train/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace moba::test {
namespace {

ProfileEvent event(const char* name, double begin, double end, KernelWork work = {}, int thread = 0) {
  return {name, work, begin, end, thread};
}

TEST(Profile, InnerTimeIsNotTheOutersAndRowsFallByTime) {
  // In the order in which calls end: inner ones first. The outer begins together with its first product.
  const std::vector<ProfileEvent> events = {
      event("matmul", 0, 1, {.flops = 10, .bytes = 4, .m = 2, .n = 3, .k = 4}),
      event("matmul", 2, 5, {.flops = 30, .bytes = 5, .m = 2, .n = 3, .k = 5}),
      event("loss", 0, 6),
      event("matmul", 6, 6.5, {.flops = 2, .bytes = 1, .m = 1, .n = 1, .k = 1}),
      event("accumulate", 0, 100, {}, 1),
  };
  const std::vector<ProfileRow> rows = profile_rows(events, false);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].name, "loss: matmul");
  EXPECT_EQ(rows[0].calls, 2);
  EXPECT_DOUBLE_EQ(rows[0].seconds, 4);
  EXPECT_DOUBLE_EQ(rows[0].work.flops, 40);
  EXPECT_DOUBLE_EQ(rows[0].work.bytes, 9);
  EXPECT_EQ(rows[1].name, "loss");
  EXPECT_DOUBLE_EQ(rows[1].seconds, 2);
  EXPECT_EQ(rows[2].name, "matmul");
  EXPECT_DOUBLE_EQ(rows[2].seconds, 0.5);

  const std::vector<ProfileRow> shapes = profile_rows(events, true);
  ASSERT_EQ(shapes.size(), 4u);
  EXPECT_EQ(shapes[0].name, "loss: matmul 2 x 3 x 5");
  EXPECT_EQ(shapes[2].name, "loss: matmul 2 x 3 x 4");
}

TEST(Profile, RecordsOnlyBetweenStartAndStopAndTellsThreadsApart) {
  { const ProfileScope before("before", {}); }
  start_profile();
  {
    const ProfileScope outer("outer", {.bytes = 8});
    std::thread([] { const ProfileScope other("other", {}); }).join();
  }
  const std::vector<ProfileEvent> events = stop_profile();
  { const ProfileScope after("after", {}); }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_STREQ(events[0].name, "other");
  EXPECT_EQ(events[0].thread, 1);
  EXPECT_STREQ(events[1].name, "outer");
  EXPECT_EQ(events[1].thread, 0);
  EXPECT_GE(events[0].begin, events[1].begin);
  EXPECT_LE(events[0].end, events[1].end);
  start_profile();
  EXPECT_TRUE(stop_profile().empty());
}

TEST(Profile, TakesAsManyStepsAsAskedAndItsTraceIsWhole) {
  StepProfile profile(2);
  EXPECT_FALSE(profile.lap());
  for (int i = 0; i < 3; ++i) {
    profile.begin_step();
    const Lap lap = profile.lap();
    { const ProfileScope scope("work", {.flops = 1, .m = 2, .n = 3, .k = 4}); }
    if (lap) lap(StepPart::forward);
    profile.end_step();
  }
  EXPECT_FALSE(profile.due());
  EXPECT_EQ(profile.steps(), 2);
  const auto trace = nlohmann::json::parse(profile.chrome_trace());
  int steps = 0, parts = 0, calls = 0;
  for (const auto& e : trace.at("traceEvents")) {
    EXPECT_EQ(e.at("ph"), "X");
    EXPECT_GE(e.at("ts").get<double>(), 0);
    EXPECT_GE(e.at("dur").get<double>(), 0);
    const std::string name = e.at("name");
    steps += name.starts_with("step");
    parts += name == "forward";
    calls += name == "work";
  }
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(parts, 2);
  EXPECT_EQ(calls, 2);
  const std::string table = profile.table(100);
  EXPECT_NE(table.find("profile of 2 steps"), std::string::npos) << table;
  EXPECT_NE(table.find("work 2 x 3 x 4"), std::string::npos) << table;
  EXPECT_NE(table.find("everything else"), std::string::npos) << table;
}

}  // namespace
}  // namespace moba::test
