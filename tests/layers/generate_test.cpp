// Generation over the KV cache against running the whole text again for every token.
#include "src/layers/generate.h"

#include <set>

#include "kernels/common/threads.h"
#include "src/layers/kv_cache.h"
#include "src/layers/sampling.h"
#include "tests/layers/model_support.h"

namespace moba::test {
namespace {

// Thousands of tiny forwards: one thread is fastest. That threads change no bit is transformer_test's subject.
const bool kOneThread = (set_num_threads(1), true);

std::vector<int32_t> random_prompt(const TransformerConfig& c, int64_t length) {
  return random_batch(c.vocab_size, {length}, static_cast<uint32_t>(length)).tokens.to_vector<int32_t>();
}

TokenBatch whole_text(const std::vector<int32_t>& tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  return {Tensor::from<int32_t>(tokens, {count}), {}, Tensor::from<int32_t>(positions, {count}), one_sequence(count, count)};
}

// Greedy, without a cache: every token runs the whole text through one pass of `layers`.
std::vector<int32_t> without_cache(Transformer& model, const std::vector<int32_t>& prompt, const std::vector<LayerAttention>& layers,
                                   int64_t count) {
  const NoGrad no_grad;
  std::vector<int32_t> text = prompt;
  ForwardOptions options = uniform_options(model.config(), {});
  options.layers = layers;
  for (int64_t i = 0; i < count; ++i) {
    const Tensor hidden = model.hidden(whole_text(text), options).value();
    text.push_back(greedy_token(model.logits(hidden.rows(hidden.size(0) - 1, hidden.size(0))).to_vector<float>()));
  }
  return {text.begin() + static_cast<int64_t>(prompt.size()), text.end()};
}

// The same where prompt positions keep the blocks that MoBA gives them and later positions read everything: one pass with a
// held selection whose rows have room for all blocks.
std::vector<int32_t> without_cache_full_decode(Transformer& model, const std::vector<int32_t>& prompt,
                                               const std::vector<LayerAttention>& layers, int64_t count) {
  const NoGrad no_grad;
  const auto prompt_length = static_cast<int64_t>(prompt.size());
  std::vector<SelectionSlot> prompt_selections(layers.size());
  ForwardOptions options = uniform_options(model.config(), {});
  options.layers = layers;
  options.selections = &prompt_selections;
  model.hidden(whole_text(prompt), options);

  std::vector<int32_t> text = prompt;
  for (int64_t i = 0; i < count; ++i) {
    const auto length = static_cast<int64_t>(text.size());
    std::vector<SelectionSlot> selections(layers.size());
    for (size_t l = 0; l < layers.size(); ++l) {
      if (layers[l].attention.type != kernels::AttentionType::moba) continue;
      const int64_t chunk_size = layers[l].attention.moba.chunk_size, slots = (length + chunk_size - 1) / chunk_size;
      const Tensor& held = prompt_selections[l].selected;
      const int64_t heads = held.size(1), held_slots = held.size(2);
      selections[l].selected = Tensor::full({length, heads, slots}, -1, DType::i32);
      auto* rows = selections[l].selected.data<int32_t>();
      for (int64_t t = 0; t < length; ++t)
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t s = 0; s < (t < prompt_length ? held_slots : t / chunk_size + 1); ++s)
            rows[(t * heads + h) * slots + s] =
                static_cast<int32_t>(t < prompt_length ? held.data<int32_t>()[(t * heads + h) * held_slots + s] : t / chunk_size - s);
    }
    options.selections = &selections;
    const Tensor hidden = model.hidden(whole_text(text), options).value();
    text.push_back(greedy_token(model.logits(hidden.rows(length - 1, length)).to_vector<float>()));
  }
  return {text.begin() + prompt_length, text.end()};
}

struct Case {
  const char* name;
  std::function<void(TransformerConfig&)> change;
  std::vector<LayerAttention> layers;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"full", [](auto&) {}, {full_attention(), full_attention()}},
      {"moba", [](auto&) {}, {moba_attention(8, 2), moba_attention(8, 2)}},
      {"moba_own_block_only", [](auto&) {}, {moba_attention(8, 1), moba_attention(5, 1)}},
      {"plain_llama",
       [](auto& c) { c.qk_norm = false, c.key_conv = 0, c.num_key_value_heads = 4; },
       {moba_attention(8, 3), full_attention()}},
      {"wide_key_conv", [](auto& c) { c.key_conv = 5, c.tie_word_embeddings = true; }, {moba_attention(8, 3), moba_attention(4, 2)}},
      {"window_and_moba", [](auto&) {}, {window_attention(6), {moba_attention(8, 2).attention, false}}},
  };
  return all;
}

class Generation : public ::testing::TestWithParam<size_t> {
 protected:
  const Case& param() const { return cases()[GetParam()]; }
  TransformerConfig config() const {
    TransformerConfig c = small_config();
    param().change(c);
    return c;
  }
  GenerateOptions options(bool moba_decode, int64_t prefill_chunk) const {
    GenerateOptions o;
    o.prefill = param().layers;
    o.moba_decode = moba_decode;
    o.prefill_chunk = prefill_chunk;
    o.max_new_tokens = 20;
    return o;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, Generation, ::testing::Range<size_t>(0, 6), [](const auto& info) { return cases()[info.param].name; });

// Prompts: one token, shorter than S, one block exactly, not a multiple of S.
TEST_P(Generation, TokensWithCacheEqualThoseWithout) {
  Transformer model(config(), DType::f32, 3);
  perturb_vectors(model, 11);
  for (const int64_t length : {1, 5, 8, 37}) {
    const std::vector<int32_t> prompt = random_prompt(model.config(), length);
    const auto sparse = without_cache(model, prompt, param().layers, 20);
    const auto dense = without_cache_full_decode(model, prompt, param().layers, 20);
    for (const int64_t chunk : {4096, 7, 1}) {
      EXPECT_EQ(generate(model, prompt, options(true, chunk)), sparse) << "prompt " << length << ", chunks of " << chunk;
      EXPECT_EQ(generate(model, prompt, options(false, chunk)), dense) << "prompt " << length << ", chunks of " << chunk;
    }
  }
}

TEST_P(Generation, ChunkedPrefillGivesOneShotsLogits) {
  Transformer model(config(), DType::f32, 3);
  perturb_vectors(model, 11);
  const std::vector<int32_t> text = random_prompt(model.config(), 61);
  const NoGrad no_grad;
  ForwardOptions forward = uniform_options(model.config(), {});
  forward.layers = param().layers;
  const TokenBatch batch = whole_text(text);
  const Tensor want = model.logits(model.hidden(batch, forward).value());
  KvCache cache(model.config(), 61, DType::f32);
  for (const std::vector<int64_t>& chunks : {std::vector<int64_t>{61}, {1, 2, 30, 28}, {24, 24, 13}}) {
    cache.clear();
    for (const int64_t count : chunks) {
      const int64_t begin = cache.length();
      const TokenBatch piece{
          batch.tokens.rows(begin, begin + count), {}, batch.positions.rows(begin, begin + count), one_sequence(count, count)};
      const Tensor got = model.logits(model.hidden(piece, forward, &cache).value());
      EXPECT_CLOSE_RMS(as_doubles(got), as_doubles(want.rows(begin, begin + count)), 1e-5);
    }
    EXPECT_EQ(cache.length(), 61);
  }
}

TEST(Generate, Bf16AndF64Run) {
  for (const DType dtype : {DType::bf16, DType::f64}) {
    Transformer model(small_config(), dtype, 3);
    GenerateOptions o;
    o.prefill.assign(2, moba_attention(8, 2));
    o.max_new_tokens = 12;
    for (const bool moba_decode : {false, true}) {
      o.moba_decode = moba_decode;
      EXPECT_EQ(generate(model, random_prompt(model.config(), 19), o).size(), 12u);
    }
  }
}

TEST(Generate, StopsAtEosMasksSurplusAndRepeatsBySeed) {
  Transformer model(small_config(), DType::f32, 3);
  const std::vector<int32_t> prompt = random_prompt(model.config(), 19);
  GenerateOptions o;
  o.prefill.assign(2, moba_attention(8, 2));
  o.max_new_tokens = 30;
  o.temperature = 1.5;
  o.seed = 5;
  std::vector<int32_t> heard;
  o.on_token = [&](int32_t token) { heard.push_back(token); };
  const auto first = generate(model, prompt, o);
  EXPECT_EQ(first.size(), 30u);
  EXPECT_EQ(heard, first);
  EXPECT_EQ(generate(model, prompt, o), first);
  o.seed = 6;
  EXPECT_NE(generate(model, prompt, o), first);
  o.seed = 5;
  o.eos_token_id = first[4];
  const auto stopped = generate(model, prompt, o);
  const auto end = std::find(first.begin(), first.end(), first[4]) + 1;
  EXPECT_EQ(stopped, (std::vector<int32_t>(first.begin(), end)));
  o.eos_token_id = -1;
  o.vocabulary = 9;
  for (const int32_t token : generate(model, prompt, o)) EXPECT_LT(token, 9);
  // Ids that no token has, greedily and drawn.
  o.max_new_tokens = 30;
  for (const double temperature : {0.0, 1.5}) {
    o.temperature = temperature;
    o.never.clear();
    o.never = generate(model, prompt, o);
    ASSERT_FALSE(o.never.empty());
    if (std::set<int32_t>(o.never.begin(), o.never.end()).size() == 9) o.never = {0, 1, 2, 3, 4, 6, 7, 8};
    for (const int32_t token : generate(model, prompt, o)) EXPECT_EQ(std::count(o.never.begin(), o.never.end(), token), 0) << token;
  }
  o.never.clear();
  o.max_new_tokens = 0;
  EXPECT_TRUE(generate(model, prompt, o).empty());
}

TEST(Generate, WrongOptionsAndFullCacheAreRefused) {
  Transformer model(small_config(), DType::f32, 3);
  GenerateOptions o;
  o.prefill.assign(2, full_attention());
  EXPECT_THROW(generate(model, {}, o), Error);
  const std::vector<int32_t> prompt = {1, 2, 3};
  for (const auto& change : std::vector<std::function<void(GenerateOptions&)>>{
           [](auto& b) { b.prefill.pop_back(); }, [](auto& b) { b.top_p = 0; }, [](auto& b) { b.temperature = -1; },
           [](auto& b) { b.vocabulary = 62; }, [](auto& b) { b.never = {61}; }, [](auto& b) { b.max_new_tokens = -1; },
           [](auto& b) { b.prefill_chunk = 0; }}) {
    GenerateOptions bad = o;
    change(bad);
    EXPECT_THROW(generate(model, prompt, bad), Error);
  }
  KvCache cache(model.config(), 2, DType::f32);
  EXPECT_THROW(model.hidden(whole_text(prompt), uniform_options(model.config(), full_attention()), &cache), Error);
  EXPECT_EQ(cache.length(), 0);
}

TEST(Sampling, GreedyTiesAndNan) {
  EXPECT_EQ(greedy_token(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(greedy_token(std::vector<float>{NAN, -INFINITY, -3}), 2);
  EXPECT_THROW(greedy_token(std::vector<float>{NAN, NAN}), Error);
}

TEST(Sampling, FollowsTheDistribution) {
  // Probabilities 0.5, 0.25, 0.125, 0.125 in shuffled order.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f), std::log(0.25f)};
  std::vector<double> share(4);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) share[static_cast<size_t>(sample_token(logits, 1, 1, (i + 0.5) / kDraws))] += 1.0 / kDraws;
  EXPECT_NEAR(share[1], 0.5, 1e-3);
  EXPECT_NEAR(share[3], 0.25, 1e-3);
  EXPECT_NEAR(share[0], 0.125, 1e-3);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(sample_token(logits, 1, 0.5, i / 100.0), 1) << "top_p 0.5 keeps the best alone";
    const int32_t token = sample_token(logits, 1, 0.6, i / 100.0);
    EXPECT_TRUE(token == 1 || token == 3);
    EXPECT_EQ(sample_token(logits, 1e-3, 1, i / 100.0), 1) << "cold is greedy";
  }
}

}  // namespace
}  // namespace moba::test
