// Evaluation against sums made by hand: instruction data by position within the example, and sums that do not depend on how
// samples are spread.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/autograd/variable.h"
#include "src/train/evaluate.h"
#include "src/train/run_plan.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

struct Model {
  explicit Model(const Recipe& recipe) : transformer(recipe.model, DType::f32, recipe.seed), options(RunPlan(recipe, {}).at({}).forward) {}
  Transformer transformer;
  ForwardOptions options;
};

struct Example {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counts;
};

// Two turns each, of a length of their own; none fills a sequence of 128, and several share a row.
std::vector<Example> examples() {
  std::vector<Example> out;
  for (const int length : {90, 30, 61, 17, 110, 45}) {
    Example e;
    for (int i = 0; i < length; ++i) {
      e.tokens.push_back(i + 1 == length ? 256 : 32 + (i * i + 7 * length) % 90);
      e.counts.push_back((i >= length / 4 && i < length / 2) || (i >= length - length / 5 && i + 1 < length));
    }
    out.push_back(e);
  }
  return out;
}

void write_examples(const std::string& path, bool with_mask) {
  TokenDatasetWriter writer(path, 257, 256, -1, make_byte_tokenizer()->json(), with_mask);
  for (const Example& e : examples()) with_mask ? writer.add_document(e.tokens, e.counts) : writer.add_document(e.tokens);
  writer.finish();
}

// The example alone in a pass, made by hand: nats of token t + 1 given those up to t.
std::vector<double> nats_of(Model& model, const Example& e) {
  const std::vector<int32_t> inputs(e.tokens.begin(), e.tokens.end() - 1), targets(e.tokens.begin() + 1, e.tokens.end());
  const auto count = static_cast<int32_t>(inputs.size());
  std::vector<int32_t> positions;
  for (int32_t t = 0; t < count; ++t) positions.push_back(t);
  TokenBatch batch;
  batch.tokens = Tensor::from(inputs, {count});
  batch.targets = Tensor::from(targets, {count});
  batch.positions = Tensor::from(positions, {count});
  batch.sequences.cu_seqlens_q = batch.sequences.cu_seqlens_k = Tensor::from(std::vector<int32_t>{0, count}, {2});
  const NoGrad no_grad;
  Tensor token_losses;
  model.transformer.loss(batch, model.options, 1.0, &token_losses);
  return token_losses.to_vector<double>();
}

struct Mean {
  double sum = 0;
  int64_t count = 0;
  void add(double x) { sum += x, ++count; }
  double value() const { return count ? sum / static_cast<double>(count) : std::nan(""); }
};

EvaluationConfig sft_config(const std::string& file) {
  EvaluationConfig config;
  config.files = {file};
  config.sequence_length = 128;
  config.packing = Packing::best_fit;
  config.document_mask = config.by_example = true;
  config.bins = 8;
  config.trailing = 5;
  config.tokens_per_pass = 256;
  return config;
}

class SftEvaluation : public ::testing::TestWithParam<bool> {};

// The parameter: every token of an example counts (sft.train_on_prompt), or the responses only.
TEST_P(SftEvaluation, PositionAndTrailingCountWithinExamplesOfPackedRows) {
  const bool everything = GetParam();
  const TrainFolder folder;
  Model model(folder.recipe());
  write_examples(folder.path("sft.h5"), true);
  std::vector<Mean> bins(8);
  Mean all, trailing;
  for (const Example& e : examples()) {
    const std::vector<double> nats = nats_of(model, e);
    std::vector<double> counted;
    for (size_t t = 0; t < nats.size(); ++t) {
      if (!everything && !e.counts[t + 1]) continue;
      bins[t * 8 / 128].add(nats[t]);
      all.add(nats[t]);
      counted.push_back(nats[t]);
    }
    for (size_t i = counted.size() > 5 ? counted.size() - 5 : 0; i < counted.size(); ++i) trailing.add(counted[i]);
  }
  ASSERT_EQ(bins.back().count, 0) << "no example is that long";
  EvaluationConfig config = sft_config(folder.path("sft.h5"));
  config.ignore_loss_mask = everything;
  const auto result = evaluate(model.transformer, model.options, config);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->targets, all.count);
  EXPECT_EQ(result->windows, 6);
  EXPECT_NEAR(result->loss, all.value(), 1e-6);
  ASSERT_TRUE(result->trailing_loss);
  EXPECT_NEAR(*result->trailing_loss, trailing.value(), 1e-6);
  ASSERT_EQ(result->position_loss.size(), bins.size());
  for (size_t i = 0; i < bins.size(); ++i) {
    if (bins[i].count > 0)
      EXPECT_NEAR(result->position_loss[i], bins[i].value(), 1e-6) << "bin " << i;
    else
      EXPECT_TRUE(std::isnan(result->position_loss[i])) << "bin " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SftEvaluation, ::testing::Bool(), [](const auto& p) { return p.param ? "everything" : "responses"; });

class WindowEvaluation : public ::testing::TestWithParam<Packing> {};

// Windows that are rows of the packed pass too (concat: those of a file's first document) and others, in two files and with a limit.
TEST_P(WindowEvaluation, PositionsAreThoseOfEveryFullWindowOfEveryDocument) {
  const TrainFolder folder;
  Model model(folder.recipe());
  EvaluationConfig config;
  config.packing = GetParam();
  config.document_mask = config.packing == Packing::best_fit;
  config.sequence_length = 128;
  config.bins = 8;
  config.trailing = 5;
  config.tokens_per_pass = 256;
  std::vector<Example> windows;  // in the order of their files and places
  const std::vector<std::vector<int>> lengths = {{400, 300, 129}, {270, 20, 140}};
  for (size_t file = 0; file < lengths.size(); ++file) {
    config.files.push_back(folder.path("books" + std::to_string(file) + ".h5"));
    TokenDatasetWriter writer(config.files.back(), 257, 256, -1, make_byte_tokenizer()->json(), false);
    for (const int length : lengths[file]) {
      std::vector<int32_t> document;
      for (int t = 0; t < length; ++t) document.push_back((t * t + length * (t % 7)) % 250);
      writer.add_document(document);
      for (auto begin = document.begin(); document.end() - begin >= 129; begin += 128) windows.push_back({{begin, begin + 129}, {}});
    }
    writer.finish();
  }
  ASSERT_EQ(windows.size(), 9U);  // 3 + 2 + 1, 2 + 0 + 1
  for (const int64_t limit : {0, 4 * 128, 6 * 128}) {
    config.max_tokens = limit;
    std::vector<Mean> bins(8);
    Mean trailing;
    const size_t count = limit == 0 ? windows.size() : static_cast<size_t>(limit / 128);
    for (size_t w = 0; w < count; ++w) {
      const std::vector<double> nats = nats_of(model, windows[w]);
      for (size_t t = 0; t < nats.size(); ++t) bins[t / 16].add(nats[t]);
      for (size_t t = nats.size() - 5; t < nats.size(); ++t) trailing.add(nats[t]);
    }
    const auto result = evaluate(model.transformer, model.options, config);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->windows, static_cast<int64_t>(count));
    ASSERT_TRUE(result->trailing_loss);
    EXPECT_NEAR(*result->trailing_loss, trailing.value(), 1e-6) << limit;
    ASSERT_EQ(result->position_loss.size(), bins.size());
    for (size_t i = 0; i < bins.size(); ++i) EXPECT_NEAR(result->position_loss[i], bins[i].value(), 1e-6) << limit << ", bin " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Packings, WindowEvaluation, ::testing::Values(Packing::concat, Packing::best_fit),
                         [](const auto& p) { return p.param == Packing::concat ? "concat" : "best_fit"; });

TEST(Evaluation, IdsWithoutATokenHaveNoBytes) {
  const TrainFolder folder;
  auto json = nlohmann::json::parse(make_byte_tokenizer()->json());
  json["added_tokens"].push_back({{"id", 300}, {"content", "<|endofprompt|>"}, {"special", true}});
  const auto write = [&](const char* name, int64_t vocab_size, const std::string& tokenizer) {
    TokenDatasetWriter writer(folder.path(name), vocab_size, 256, -1, tokenizer, false);
    writer.add_document(std::vector<int32_t>(400, 'x'));
    writer.finish();
    return folder.path(name);
  };
  const Recipe recipe = folder.recipe();
  Model model(recipe);
  EvaluationConfig config;
  config.sequence_length = 128;
  config.files = {write("bytes.h5", 257, make_byte_tokenizer()->json())};
  const auto want = evaluate(model.transformer, model.options, config);
  config.files = {write("gaps.h5", 301, json.dump())};
  EXPECT_EQ(evaluate(model.transformer, model.options, config)->bits_per_byte, want->bits_per_byte);
}

// 128 counted targets in each sample, so that means times a power of two are the sums, bit for bit.
TEST(Evaluation, TheSumOfASetIsTheSumOfItsSamplesSums) {
  const TrainFolder folder;
  Model model(folder.recipe());
  EvaluationConfig config;
  config.sequence_length = config.tokens_per_pass = 128;
  std::vector<std::string> files;
  double sum = 0;
  for (int i = 0; i < 8; ++i) {
    files.push_back(folder.path("part" + std::to_string(i) + ".h5"));
    TokenDatasetWriter writer(files.back(), 257, 256, -1, make_byte_tokenizer()->json(), false);
    std::vector<int32_t> tokens;
    for (int t = 0; t < 129; ++t) tokens.push_back((t * t * (i + 3) + 11 * i) % 257);
    writer.add_document(tokens);
    writer.finish();
    config.files = {files.back()};
    sum += evaluate(model.transformer, model.options, config)->loss * 128;
  }
  config.files = files;
  const auto whole = evaluate(model.transformer, model.options, config);
  ASSERT_EQ(whole->targets, 8 * 128);
  EXPECT_EQ(whole->loss * (8 * 128), sum);
}

}  // namespace
}  // namespace moba::test
