// Precedence and stage borders of the attention plan.
#include "src/moba/schedule.h"

#include <gtest/gtest.h>

#include "kernels/common/check.h"

namespace moba::test {
namespace {

using kernels::AttentionType;

AttentionPlan moba_plan() {
  AttentionPlan plan;
  plan.base.type = AttentionType::moba;
  plan.base.moba = {.chunk_size = 128, .topk = 3};
  plan.base.window = 64;
  return plan;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "no error";
}

// Types of all layers as letters: f, m, w.
std::string types(const AttentionPlan& plan, int64_t num_layers, int64_t tokens = 0, int64_t total = 1000) {
  std::string text;
  for (int64_t layer = 0; layer < num_layers; ++layer)
    text += attention_type_name(attention_at(plan, layer, num_layers, tokens, total).attention.type)[0];
  return text;
}

TEST(Schedule, LaterSourcesWin) {
  AttentionPlan plan = moba_plan();
  EXPECT_EQ(types(plan, 4), "mmmm");
  plan.schedule = {{.until = 0.5, .type = AttentionType::full, .chunk_size = {}, .topk = {}, .window = {}},
                   {.until = 1, .type = AttentionType::moba, .chunk_size = 256, .topk = {}, .window = {}}};
  EXPECT_EQ(types(plan, 4, 0), "ffff");
  EXPECT_EQ(types(plan, 4, 500), "mmmm");
  EXPECT_EQ(attention_at(plan, 0, 4, 500, 1000).attention.moba.chunk_size, 256);
  EXPECT_EQ(attention_at(plan, 0, 4, 500, 1000).attention.moba.topk, 3);
  plan.layers = {{.layers = {1, 3}, .type = AttentionType::window, .chunk_size = {}, .topk = {}, .window = 32, .rope = false}};
  EXPECT_EQ(types(plan, 4, 500), "mwmw");
  EXPECT_FALSE(attention_at(plan, 1, 4, 0, 1000).rope);
  EXPECT_TRUE(attention_at(plan, 0, 4, 0, 1000).rope);
  EXPECT_EQ(attention_at(plan, 3, 4, 0, 1000).attention.window, 32);
  plan.full_attention_layers = {3};
  EXPECT_EQ(types(plan, 4, 500), "mwmf");
  plan.command_line = AttentionConfig{.type = AttentionType::moba, .naive = true, .moba = {}};
  EXPECT_EQ(types(plan, 4, 0), "mmmm");
  EXPECT_TRUE(attention_at(plan, 3, 4, 0, 1000).attention.naive);
  EXPECT_EQ(attention_at(plan, 3, 4, 500, 1000).attention.moba.chunk_size, 256) << "sizes come from the recipe";
  EXPECT_FALSE(attention_at(plan, 1, 4, 0, 1000).rope) << "--attn changes attention, not positions";
  plan.full_attention_layers.clear();
  plan.hybrid_layers = "last1";
  EXPECT_EQ(types(plan, 4, 0), "mmmf");
}

TEST(Schedule, PinnedLayersStayFullInEveryStage) {
  AttentionPlan plan = moba_plan();
  plan.full_attention_layers = {2};
  plan.schedule = {{.until = 400, .type = AttentionType::moba, .chunk_size = {}, .topk = {}, .window = {}},
                   {.until = 1, .type = AttentionType::window, .chunk_size = {}, .topk = {}, .window = {}}};
  EXPECT_EQ(types(plan, 3, 399), "mmf");
  EXPECT_EQ(types(plan, 3, 400), "wwf");
}

TEST(Schedule, HybridMakesOthersMobaWhateverTheRecipeSays) {
  AttentionPlan plan = moba_plan();
  plan.base.type = AttentionType::full;
  plan.hybrid_layers = "first2";
  EXPECT_EQ(types(plan, 5), "ffmmm");
  plan.hybrid_layers = "none";
  EXPECT_EQ(types(plan, 3), "mmm");
  plan.hybrid_layers = "all";
  EXPECT_EQ(types(plan, 3), "fff");
}

TEST(Schedule, StageBordersAreExact) {
  AttentionPlan plan = moba_plan();
  const auto stage_at = [&](double until, int64_t tokens, int64_t total) {
    plan.schedule = {{.until = until, .type = {}, .chunk_size = {}, .topk = {}, .window = {}},
                     {.until = 1, .type = {}, .chunk_size = {}, .topk = {}, .window = {}}};
    return schedule_stage(plan, tokens, total);
  };
  // A stage begins at the first step whose tokens so far reach the end of the stage before it; shares survive binary rounding.
  EXPECT_EQ(stage_at(0.07, 6, 100), 0);
  EXPECT_EQ(stage_at(0.07, 7, 100), 1);
  EXPECT_EQ(stage_at(0.29, 28, 100), 0);
  EXPECT_EQ(stage_at(0.29, 29, 100), 1);
  EXPECT_EQ(stage_at(0.9, 8'999'999'999, 10'000'000'000), 0);
  EXPECT_EQ(stage_at(0.9, 9'000'000'000, 10'000'000'000), 1);
  EXPECT_EQ(stage_at(0.5, 1, 3), 0);  // 1.5 tokens are not reached by 1
  EXPECT_EQ(stage_at(0.5, 2, 3), 1);
  EXPECT_EQ(stage_at(4096, 4095, 10000), 0);
  EXPECT_EQ(stage_at(4096, 4096, 10000), 1);
  EXPECT_EQ(stage_at(4096, 20000, 10000), 1) << "after the end the last stage stays";
}

TEST(Schedule, WrongPlansSayWhatIsWrong) {
  AttentionPlan plan = moba_plan();
  const auto check = [&] { return message_of([&] { validate(plan, 4, 1000); }); };
  EXPECT_EQ(check(), "no error");
  const auto stages = [](std::vector<double> untils) {
    std::vector<ScheduleStage> result;
    for (const double u : untils) result.push_back({.until = u, .type = {}, .chunk_size = {}, .topk = {}, .window = {}});
    return result;
  };
  plan.schedule = stages({0.5, 0.9});
  EXPECT_NE(check().find("schedule[1].until: the last stage must end with the run"), std::string::npos) << check();
  plan.schedule = stages({0.5, 0.4, 1});
  EXPECT_NE(check().find("schedule[1].until must be later"), std::string::npos) << check();
  plan.schedule = stages({0.5, 400, 1});
  EXPECT_NE(check().find("in a run of 1000 tokens"), std::string::npos) << check();
  plan.schedule = stages({2000, 1});
  EXPECT_NE(check().find("schedule[1].until must be later"), std::string::npos) << check();
  plan.schedule = stages({2.5, 1});
  EXPECT_NE(check().find("must be an integer"), std::string::npos) << check();
  plan.schedule = stages({0, 1});
  EXPECT_NE(check().find("must be a share in (0, 1]"), std::string::npos) << check();
  plan.schedule = stages({1, 1});
  EXPECT_NE(check().find("stages follow"), std::string::npos) << check();
  plan.schedule.clear();
  plan.full_attention_layers = {4};
  EXPECT_NE(check().find("layer 4 does not exist, the model has layers 0 .. 3"), std::string::npos) << check();
  plan.full_attention_layers = {1};
  plan.hybrid_layers = "last1";
  EXPECT_NE(check().find("--hybrid-layers (command line) and model.attention.full_attention_layers"), std::string::npos) << check();
  plan.full_attention_layers.clear();
  plan.command_line = AttentionConfig{.type = AttentionType::full, .moba = {}};
  EXPECT_NE(check().find("--attn full together"), std::string::npos) << check();
  plan.command_line.reset();
  plan.base.moba.topk = 0;
  EXPECT_NE(check().find("moba_topk must be >= 1"), std::string::npos) << check();
  plan.base = {.type = AttentionType::window, .moba = {}};
  plan.hybrid_layers.reset();
  EXPECT_NE(check().find("window must be >= 1"), std::string::npos) << check();
}

TEST(Schedule, HybridLayersText) {
  using Layers = std::vector<int64_t>;
  EXPECT_EQ(parse_hybrid_layers("last3", 8), (Layers{5, 6, 7}));
  EXPECT_EQ(parse_hybrid_layers("first2", 8), (Layers{0, 1}));
  EXPECT_EQ(parse_hybrid_layers("last0", 8), Layers{});
  EXPECT_EQ(parse_hybrid_layers("last8", 8).size(), 8u);
  EXPECT_EQ(parse_hybrid_layers("none", 8), Layers{});
  EXPECT_EQ(parse_hybrid_layers("all", 3), (Layers{0, 1, 2}));
  EXPECT_EQ(parse_hybrid_layers("7,0,3", 8), (Layers{0, 3, 7}));
  EXPECT_EQ(parse_hybrid_layers("5", 8), Layers{5});
  const auto error = [](const std::string& text) { return message_of([&] { parse_hybrid_layers(text, 8); }); };
  EXPECT_NE(error("last9").find("the model has 8 layers, so N must be in 0 .. 8"), std::string::npos) << error("last9");
  EXPECT_NE(error("8").find("layer 8 does not exist, the model has layers 0 .. 7"), std::string::npos) << error("8");
  EXPECT_NE(error("1,1").find("named twice"), std::string::npos);
  for (const char* text : {"", "last", "first-1", "last 3", "1,", ",1", "-1", "x", "0;3", "99999999999999999999"})
    EXPECT_NE(error(text).find("allowed: lastN, firstN, none, all"), std::string::npos) << text << ": " << error(text);
}

TEST(Schedule, NamesRoundTrip) {
  for (const auto type : {AttentionType::full, AttentionType::moba, AttentionType::window})
    EXPECT_EQ(attention_type_from_name(attention_type_name(type)), type);
  for (const auto gate : {kernels::Gate::mean, kernels::Gate::minmax, kernels::Gate::oracle})
    EXPECT_EQ(gate_from_name(kernels::gate_name(gate)), gate);
  EXPECT_EQ(message_of([] { gate_from_name("meen"); }), "gate must be one of mean, minmax, window, sink, random, oracle, got 'meen'");
}

}  // namespace
}  // namespace moba::test
