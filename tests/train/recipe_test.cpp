// Reading recipes: every message a user can get for a wrong one, overrides, precedence, and what absence means.
#include "src/train/recipe.h"

#include <gtest/gtest.h>

#include "src/train/schema.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

struct Wrong {
  const char* name;
  const char* line;     // in the tiny recipe ...
  const char* replace;  // ... replaced by this
  const char* message;  // expected among the errors, after "FILE:"
};

const Wrong kWrong[] = {
    {"unknown_key", "  hidden_size: 32", "  hidden_sise: 32", "5:3: model.hidden_sise: unknown key (did you mean 'hidden_size'?)"},
    {"required_key_missing", "  hidden_size: 32\n", "",
     "5:3: model.hidden_size: missing, and it has no default (whole number: Width of the residual stream, C)"},
    {"key_of_another_section", "  hidden_size: 32", "  hidden_size: 32\n  topk: 3",
     "6:3: model.topk: unknown key (did you mean 'model.attention.moba_topk'?)"},
    {"unknown_section", "optimizer:", "optimiser:", "22:1: optimiser: unknown key (did you mean 'optimizer'?)"},
    {"repeated_key", "  lr: 1e-2", "  lr: 1e-2\n  lr: 1e-3", "24:3: optimizer.lr: repeated key, first at FILE:23:3"},
    {"text_for_a_number", "  num_hidden_layers: 2", "  num_hidden_layers: two",
     "7:22: model.num_hidden_layers: must be a whole number, got 'two'"},
    {"quoted_number", "  num_hidden_layers: 2", "  num_hidden_layers: \"2\"",
     "7:22: model.num_hidden_layers: must be a whole number, got the quoted text '2'"},
    {"fraction_for_a_whole_number", "  max_steps: 20", "  max_steps: 2.5", "20:14: train.max_steps: must be a whole number, got '2.5'"},
    {"out_of_range", "    moba_topk: 3", "    moba_topk: 0", "11:16: model.attention.moba_topk: must be at least 1, got 0"},
    {"too_large", "  hidden_size: 32", "  hidden_size: 2e6", "5:16: model.hidden_size: must be at most 1000000, got 2e6"},
    {"no_training_data", "    - path:", "    []\n  #", "14:5: data.train: must not be empty"},
    {"no_utf8", "  name: tiny", "  name: t\xefny", "2:9: run.name: must be UTF-8 text"},
    {"between", "  lr: 1e-2", "  lr: 1e-2\n  weight_decay: -1", "24:17: optimizer.weight_decay: must be between 0 and 10, got -1"},
    {"wrong_choice", "  precision: fp32", "  precision: bf61",
     "21:14: train.precision: must be auto | bf16 | fp32, got 'bf61' (did you mean 'bf16'?)"},
    {"list_for_a_section", "  interval: 5", "  [5]", "34:3: logging: must be a section of keys, got a list"},
    {"section_for_a_list", "    - path:", "      path:", "14:7: data.train: must be a list of sections, got a section"},
    {"key_in_a_list",
     "  validation:", "      weigth: 2\n  validation:", "15:7: data.train[0].weigth: unknown key (did you mean 'weight'?)"},
    {"yes_is_not_true", "logging:", "logging:\n  tensorboard: yes", "34:16: logging.tensorboard: must be true or false, got 'yes'"},
    {"two_lengths", "  max_steps: 20", "  max_steps: 20\n  max_tokens: 9",
     "20:14: train.max_steps: max_tokens is given too (at FILE:21:15); a run has one length"},
    {"no_length", "  max_steps: 20\n", "", "17:3: train: neither max_tokens nor max_steps is given; a run needs a length"},
    {"batch_not_divisible", "  global_batch_tokens: 1024", "  global_batch_tokens: 1000",
     "18:24: train.global_batch_tokens: 1000 is not a multiple of sequence_length 128 x micro_batch_size 4 = 512; nearest: 512 or 1024"},
    {"heads", "  num_attention_heads: 2", "  num_attention_heads: 2\n  num_key_value_heads: 3",
     "9:24: model.num_key_value_heads: must divide num_attention_heads 2, got 3"},
    {"moba_without_sizes", "    moba_topk: 3\n", "",
     "10:5: model.attention.moba_topk: missing, and a layer uses moba (blocks a query reads, for example 3)"},
    {"layer_out_of_range", "    moba_topk: 3", "    moba_topk: 3\n    full_attention_layers: [1, 2]",
     "12:28: model.attention.full_attention_layers: there is no layer 2; the model has layers 0 to 1"},
    {"schedule_does_not_end", "    moba_topk: 3", "    moba_topk: 3\n    schedule: [{until: 0.5, type: moba}]",
     "12:15: model.attention.schedule: the last until must be 1 (the end of the run), got 0.5"},
    {"schedule_falls", "    moba_topk: 3", "    moba_topk: 3\n    schedule: [{until: 0.5}, {until: 0.2}, {until: 1}]",
     "12:15: model.attention.schedule: until must rise from entry to entry, got 0.2 after 0.5"},
    {"tensor_parallel", "logging:", "parallel:\n  tensor: 4\nlogging:",
     "34:11: parallel.tensor: only data parallelism is built, so the only value is 1, got 4"},
    {"zero_stage", "logging:", "parallel:\n  zero_stage: 3\nlogging:",
     "34:15: parallel.zero_stage: stages 2 and 3 (sharded gradients and weights) are not built; 0 or 1, got 3"},
    {"ranks_no_power_of_two", "logging:", "parallel:\n  data: 3\nlogging:",
     "34:9: parallel.data: must be a power of two (sums are made in a binary tree), got 3; nearest: 2 or 4"},
    {"more_ranks_than_lanes", "logging:", "parallel:\n  data: 2\n  lanes: 1\nlogging:",
     "34:9: parallel.data: 2 ranks, but 1 lanes (at FILE:35:10): a rank owns whole lanes, so there can be at most as many ranks"},
    {"more_lanes_than_micro_batches", "logging:", "parallel:\n  lanes: 4\nlogging:",
     "34:10: parallel.lanes: 4 lanes, but a step has only 2 micro-batches of 512 tokens; lower it, or leave it out"},
    {"batch_not_of_ranks", "logging:", "parallel:\n  data: 4\nlogging:",
     "18:24: train.global_batch_tokens: 1024 is not a multiple of sequence_length 128 x micro_batch_size 4 x parallel.data 4 = 2048; "
     "smallest: 2048"},
    {"evaluation_without_data", "  validation:", "  #", "13:3: data.validation: missing, and eval.interval is 10 (0 = no evaluation)"},
};

std::string errors_of(const std::string& file, const RecipeOptions& options = {}) {
  try {
    read_recipe(file, options);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

class WrongRecipe : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongRecipe, SaysWhereAndWhat) {
  const Wrong& w = GetParam();
  const TrainFolder folder;
  folder.write("wrong.yaml", replaced(folder.recipe_text(), w.line, w.replace));
  const std::string file = folder.path("wrong.yaml");
  std::string message = w.message;
  if (const size_t at = message.find("FILE"); at != std::string::npos) message.replace(at, 4, file);
  const std::string errors = errors_of(file);
  EXPECT_NE(("\n" + errors + "\n").find("\n" + file + ":" + message + "\n"), std::string::npos) << "wanted: " << message << "\ngot:\n"
                                                                                                << errors;
}

INSTANTIATE_TEST_SUITE_P(Table, WrongRecipe, ::testing::ValuesIn(kWrong), [](const auto& info) { return std::string(info.param.name); });

TEST(Recipe, ReportsAllErrorsAtOnce) {
  const TrainFolder folder;
  std::string text = replaced(folder.recipe_text(), "  hidden_size: 32", "  hidden_sise: 32");
  text = replaced(text, "  precision: fp32", "  precision: fp16");
  folder.write("wrong.yaml", text);
  RecipeOptions options;
  options.overrides = {"train.max_stepz=3", "nonsense", "eval.bins=-1", "optimizer.betas=[0.9"};
  const std::string errors = errors_of(folder.path("wrong.yaml"), options);
  for (const char* part :
       {"model.hidden_sise: unknown key", "model.hidden_size: missing", "train.precision: must be",
        "command line 'train.max_stepz=3': train.max_stepz: unknown key (did you mean 'max_steps'?)",
        "command line 'nonsense': not of the form section.key=value",
        "command line 'eval.bins=-1': eval.bins: must be between 0 and 65536, got -1", "command line 'optimizer.betas=[0.9': YAML syntax"})
    EXPECT_NE(errors.find(part), std::string::npos) << part << "\n" << errors;
}

TEST(Recipe, AnEmptyFileListsWhatIsMissing) {
  const TrainFolder folder;
  folder.write("empty.yaml", "");
  const std::string errors = errors_of(folder.path("empty.yaml"));
  for (const char* part : {"model: missing", "train: missing", "data: missing"})
    EXPECT_NE(errors.find(part), std::string::npos) << part << "\n" << errors;
}

TEST(Recipe, AListIsNoRecipeAndNothingElseIsSaid) {
  const TrainFolder folder;
  folder.write("list.yaml", "- a\n- b\n");
  const std::string file = folder.path("list.yaml");
  EXPECT_EQ(errors_of(file), file + ":1:1: a recipe is a section of keys, got a list");
}

TEST(Recipe, SyntaxErrorHasAPlace) {
  const TrainFolder folder;
  folder.write("wrong.yaml", "run:\n  name: a\n b: [\n");
  EXPECT_NE(errors_of(folder.path("wrong.yaml")).find("wrong.yaml:3:"), std::string::npos) << errors_of(folder.path("wrong.yaml"));
  EXPECT_NE(errors_of(folder.path("none.yaml")).find("cannot read the recipe"), std::string::npos);
}

TEST(Recipe, MissingDataNamesTheCommand) {
  const TrainFolder folder;
  RecipeOptions options;
  options.overrides = {"data.train=[{path: data/medium/none.h5}]", "model.init_from=runs/no_such_run/checkpoints/latest"};
  const std::string errors = errors_of(folder.path("tiny.yaml"), options);
  EXPECT_NE(errors.find("data.train: data/medium/none.h5 does not exist; make it with: tools/dataset medium"), std::string::npos) << errors;
  EXPECT_NE(errors.find("model.init_from: runs/no_such_run/checkpoints/latest does not exist; it must hold config.json"), std::string::npos)
      << errors;
  options.overrides = {"task=sft", "data.train=[{path: data/mine/none.h5}]"};
  EXPECT_NE(errors_of(folder.path("tiny.yaml"), options)
                .find("make it with: moba-data prepare --sft --tokenizer TOKENIZER --input CHATS... --output data/mine/none.h5"),
            std::string::npos);
  options.allow_missing_inputs = true;
  EXPECT_EQ(errors_of(folder.path("tiny.yaml"), options), "");
}

TEST(Recipe, MissingStartModelNamesTheRecipeThatMakesIt) {
  const TrainFolder folder;
  const std::string recipe = folder.path("tiny.yaml");
  const auto errors = [&](const std::string& init_from) {
    RecipeOptions options;
    options.overrides = {"model.init_from=" + init_from};
    return errors_of(recipe, options);
  };
  EXPECT_NE(errors("runs/tiny/checkpoints/latest").find("make it with: moba-train " + recipe), std::string::npos);
  EXPECT_NE(errors("runs/tiny-full").find("make it with: moba-train " + recipe + " --attn full run.name=tiny-full"), std::string::npos);
  EXPECT_NE(errors("runs/quickstart-full").find("make it with: tools/quickstart"), std::string::npos);
  EXPECT_NE(errors("models/tiny").find("it must hold config.json"), std::string::npos);
}

TEST(Recipe, VocabularyComesFromTheDataOrIsCheckedAgainstIt) {
  const TrainFolder folder;
  EXPECT_EQ(folder.recipe().model.vocab_size, 257);
  EXPECT_EQ(folder.recipe({"model.vocab_size=300"}).model.vocab_size, 300);
  try {
    folder.recipe({"model.vocab_size=256"});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("command line 'model.vocab_size=256': model.vocab_size: 256 is below the 257 of"),
              std::string::npos)
        << e.what();
  }
}

TEST(Recipe, OverridesAreYamlAndTheLastWins) {
  const TrainFolder folder;
  const Recipe r = folder.recipe({"optimizer.betas=[0.8, 0.99]", "train.global_batch_tokens=2_048", "optimizer.lr=1", "optimizer.lr=3e-4",
                                  fmt::format("data.train=[{{path: {0}, weight: 2}}, {{path: {0}}}]", folder.path("train.h5"))});
  EXPECT_EQ(r.optimizer.beta1, 0.8);
  EXPECT_EQ(r.optimizer.beta2, 0.99);
  EXPECT_EQ(r.optimizer.lr, 3e-4);
  EXPECT_EQ(r.global_batch_tokens, 2048);
  ASSERT_EQ(r.stages.front().sources.size(), 2u);
  EXPECT_EQ(r.stages.front().sources[0].weight, 2);
  EXPECT_EQ(r.stages.front().sources[1].weight, 1);
}

TEST(Recipe, LengthOnTheCommandLineReplacesTheOther) {
  const TrainFolder folder;
  const Recipe tokens = folder.recipe({"train.max_tokens=1e5"});
  EXPECT_EQ(tokens.max_tokens, 100000);
  EXPECT_EQ(tokens.max_steps, 0);
  const Recipe steps = folder.recipe({"train.max_steps=7"});
  EXPECT_EQ(steps.max_steps, 7);
  RecipeOptions both;
  both.overrides = {"train.max_steps=7", "train.max_tokens=9"};
  EXPECT_NE(errors_of(folder.path("tiny.yaml"), both).find("a run has one length"), std::string::npos);
}

TEST(Recipe, HybridLayersExcludeFullAttentionLayersAndNameBothPlaces) {
  const TrainFolder folder;
  RecipeOptions options;
  options.overrides = {"model.attention.full_attention_layers=[1]"};
  options.hybrid_layers = "last1";
  const std::string errors = errors_of(folder.path("tiny.yaml"), options);
  EXPECT_NE(errors.find("--hybrid-layers last1: command line 'model.attention.full_attention_layers=[1]' states"), std::string::npos)
      << errors;
  options.overrides.clear();
  options.attention = "full";
  EXPECT_NE(errors_of(folder.path("tiny.yaml"), options).find("--hybrid-layers last1 with --attn full"), std::string::npos);
  options.attention = "dense";
  EXPECT_NE(errors_of(folder.path("tiny.yaml"), options).find("--attn dense: must be full, moba, moba_naive or window"), std::string::npos);
}

TEST(Recipe, AttnFullNeedsNoMobaSizes) {
  const TrainFolder folder;
  folder.write("tiny.yaml", replaced(folder.recipe_text(), "    moba_topk: 3\n", ""));
  EXPECT_EQ(folder.recipe({}, "full").attention.command_line->type, kernels::AttentionType::full);
}

TEST(Recipe, StagesCarryLengthRopeAttentionAndData) {
  const TrainFolder folder;
  folder.write("tiny.yaml", replaced(folder.recipe_text(), "  sequence_length: 128\n", R"(  stages:
    - {sequence_length: 64, until: 0.5, attention: full}
    - {sequence_length: 256, until: 1, attention: {type: moba, moba_topk: 2}, rope_scaling: {position_interpolation: 4}}
)"));
  const Recipe r = folder.recipe({"train.micro_batch_size=1"});
  ASSERT_EQ(r.stages.size(), 2u);
  EXPECT_EQ(r.stages[1].sequence_length, 256);
  EXPECT_EQ(r.stages[1].rope_scaling.position_interpolation, 4);
  EXPECT_EQ(r.model.max_position_embeddings, 256);
  ASSERT_EQ(r.attention.schedule.size(), 2u);
  EXPECT_EQ(r.attention.schedule[0].type, kernels::AttentionType::full);
  EXPECT_EQ(r.attention.schedule[1].topk, 2);
}

TEST(Recipe, SftPacksWholeExamplesWithADocumentMask) {
  const TrainFolder folder;
  const Recipe pretrain = folder.recipe(), sft = folder.recipe({"task=sft"});
  EXPECT_EQ(pretrain.packing, Packing::concat);
  EXPECT_FALSE(pretrain.document_mask);
  EXPECT_EQ(sft.packing, Packing::best_fit);
  EXPECT_TRUE(sft.document_mask);
}

TEST(Recipe, ResolvedConfigReadsBackAsTheSameRecipe) {
  const TrainFolder folder;
  const Recipe first = folder.recipe({"model.attention.layers=[{layers: [0], type: window, window: 8, rope: false}]", "run.name=\"007\""});
  folder.write("resolved.yaml", resolved_yaml(first));
  Recipe again = read_recipe(folder.path("resolved.yaml"), {});
  EXPECT_EQ(resolved_yaml(again), resolved_yaml(first));
  EXPECT_EQ(again.name, "007");
  ASSERT_EQ(again.attention.layers.size(), 1u);
  EXPECT_EQ(again.attention.layers[0].rope, false);
}

struct Options {
  const char* name;
  std::optional<std::string> attention, hybrid_layers;
  std::vector<std::string> overrides;
};

// Types named wherever they can be, so that an option that stands above them must change each.
const std::string kTypedLayers =
    "model.attention.layers=[{layers: [0], type: window, window: 8, rope: false}, {layers: [2], moba_topk: 2}]";
const std::string kTypedSchedule =
    "model.attention.schedule=[{until: 0.3, type: full}, {until: 0.6, moba_topk: 4}, {until: 1, type: moba, moba_chunk_size: 32}]";
const std::string kTypedStages =
    "train.stages=[{sequence_length: 64, until: 0.4, attention: full}, {sequence_length: 128, until: 0.7, attention: {moba_topk: 2}}, "
    "{sequence_length: 128, until: 1, attention: {type: moba, moba_topk: 5}}]";

const Options kOptions[] = {
    {"full", "full", {}, {kTypedLayers, kTypedSchedule}},
    {"moba_over_pinned_layers", "moba", {}, {kTypedLayers, kTypedStages, "model.attention.full_attention_layers=[1, 3]"}},
    {"window", "window", {}, {"model.attention.window=16", kTypedSchedule, "model.attention.full_attention_layers=[1]"}},
    {"hybrid", {}, "last2", {kTypedLayers, kTypedStages}},
    {"hybrid_none", {}, "none", {"model.attention.type=full", kTypedSchedule}},
    {"hybrid_and_moba", "moba", "0,3", {kTypedLayers, kTypedSchedule}},
};

class ResolvedOptions : public ::testing::TestWithParam<Options> {};

TEST_P(ResolvedOptions, ResolvedConfigAloneGivesTheSameAttention) {
  const Options& o = GetParam();
  const TrainFolder folder;
  RecipeOptions options;
  options.overrides = o.overrides;
  options.overrides.insert(options.overrides.end(), {"model.num_hidden_layers=4", "train.micro_batch_size=1"});
  options.attention = o.attention;
  options.hybrid_layers = o.hybrid_layers;
  const Recipe first = read_recipe(folder.path("tiny.yaml"), options);
  folder.write("resolved.yaml", resolved_yaml(first));
  const Recipe again = read_recipe(folder.path("resolved.yaml"), {});
  EXPECT_FALSE(again.attention.command_line || again.attention.hybrid_layers);
  for (int64_t layer = 0; layer < 4; ++layer)
    for (int64_t tokens = 0; tokens < 100; tokens += 5) {
      const PlannedAttention want = attention_at(first.attention, layer, 4, tokens, 100);
      const PlannedAttention got = attention_at(again.attention, layer, 4, tokens, 100);
      EXPECT_TRUE(got.attention == want.attention && got.rope == want.rope) << "layer " << layer << " at " << tokens << " of 100:\n"
                                                                            << resolved_yaml(first);
    }
}

INSTANTIATE_TEST_SUITE_P(Table, ResolvedOptions, ::testing::ValuesIn(kOptions),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Recipe, ResolvedConfigNamesTheOptionsThatHaveNoKey) {
  const TrainFolder folder;
  const std::string text = resolved_yaml(folder.recipe({}, "moba_naive"));
  EXPECT_EQ(text.find("# The run was started with --attn moba_naive, "), 0u) << text;
  EXPECT_EQ(resolved_yaml(folder.recipe()).find('#'), std::string::npos);
}

}  // namespace
}  // namespace moba::test
