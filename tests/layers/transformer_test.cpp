// The decoder: names, start values, gradients, and what must not change a bit.
#include "src/layers/transformer.h"

#include <cmath>
#include <set>

#include "kernels/common/threads.h"
#include "tests/layers/model_support.h"

namespace moba::test {
namespace {

TEST(Transformer, ParameterNamesAndShapesAreHuggingFaces) {
  TransformerConfig c = small_config();
  c.num_hidden_layers = 1;
  Transformer model(c, DType::f32, 1);
  const std::map<std::string, Shape> expected = {
      {"model.embed_tokens.weight", {61, 32}},
      {"model.layers.0.input_layernorm.weight", {32}},
      {"model.layers.0.post_attention_layernorm.weight", {32}},
      {"model.layers.0.self_attn.q_proj.weight", {32, 32}},
      {"model.layers.0.self_attn.k_proj.weight", {16, 32}},
      {"model.layers.0.self_attn.v_proj.weight", {16, 32}},
      {"model.layers.0.self_attn.o_proj.weight", {32, 32}},
      {"model.layers.0.self_attn.q_norm.weight", {8}},
      {"model.layers.0.self_attn.k_norm.weight", {8}},
      {"model.layers.0.self_attn.k_conv.weight", {16, 3}},
      {"model.layers.0.mlp.gate_proj.weight", {48, 32}},
      {"model.layers.0.mlp.up_proj.weight", {48, 32}},
      {"model.layers.0.mlp.down_proj.weight", {32, 48}},
      {"model.norm.weight", {32}},
      {"lm_head.weight", {61, 32}},
  };
  std::map<std::string, Shape> names;
  int64_t elements = 0;
  for (const Parameter& p : model.parameters()) {
    names[p.name] = p.master.shape();
    elements += p.master.numel();
    const bool projection = p.name.find("_proj.") != std::string::npos;
    EXPECT_EQ(p.matrix, projection) << p.name;
    EXPECT_EQ(p.decay, projection || p.name == "lm_head.weight") << p.name;
  }
  EXPECT_EQ(names, expected);
  EXPECT_EQ(elements, parameter_count(c));
  EXPECT_THROW(model.parameter("model.layers.1.mlp.up_proj.weight"), Error);
  c.tie_word_embeddings = true;
  Transformer tied(c, DType::f32, 1);
  EXPECT_THROW(tied.parameter("lm_head.weight"), Error);
  EXPECT_EQ(tied.parameters().size(), expected.size() - 1);
  int64_t tied_elements = 0;
  for (const Parameter& p : tied.parameters()) tied_elements += p.master.numel();
  EXPECT_EQ(tied_elements, parameter_count(c));
  EXPECT_EQ(embedding_parameter_count(c), 61 * 32);
}

TEST(Transformer, StartDependsOnSeedAndNameOnly) {
  TransformerConfig c = small_config();
  Transformer two(c, DType::f32, 7), other_seed(c, DType::f32, 8);
  c.num_hidden_layers = 8;
  c.qk_norm = false;
  Transformer eight(c, DType::f32, 7);
  const std::string name = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_EQ(as_doubles(two.parameter(name).master), as_doubles(eight.parameter(name).master));
  EXPECT_NE(as_doubles(two.parameter(name).master), as_doubles(other_seed.parameter(name).master));
  EXPECT_NE(as_doubles(two.parameter(name).master), as_doubles(two.parameter("model.layers.0.self_attn.q_proj.weight").master));
  const auto deviation = [](const Tensor& t) {
    double sum = 0;
    for (const double x : as_doubles(t)) sum += x * x;
    return std::sqrt(sum / static_cast<double>(t.numel()));
  };
  EXPECT_NEAR(deviation(two.parameter("model.layers.0.mlp.gate_proj.weight").master), 0.15, 0.01);
  EXPECT_NEAR(deviation(two.parameter("model.layers.0.mlp.down_proj.weight").master), 0.15 / 2, 0.01);
  EXPECT_NEAR(deviation(eight.parameter("model.layers.0.mlp.down_proj.weight").master), 0.15 / 4, 0.01);
  for (const double x : as_doubles(two.parameter("model.norm.weight").master)) EXPECT_EQ(x, 1);
  for (const double x : as_doubles(two.parameter("model.layers.0.self_attn.k_conv.weight").master)) EXPECT_EQ(x, 0);
}

// Central differences in fp64 with the selection held, on a few elements of every parameter.
void check_gradients(const TransformerConfig& config, const std::vector<LayerAttention>& layers) {
  const int threads = num_threads();
  set_num_threads(1);  // hundreds of tiny forwards
  Transformer model(config, DType::f64, 3);
  perturb_vectors(model, 11);
  const TokenBatch batch = random_batch(config.vocab_size, {19, 0, 8, 1}, 5);
  std::vector<SelectionSlot> selections(layers.size());
  ForwardOptions options = uniform_options(config, {});
  options.layers = layers;
  options.selections = &selections;
  const StepResult analytic = forward_backward(model, batch, options);
  std::mt19937 random(1);
  for (Parameter& p : model.parameters()) {
    ASSERT_TRUE(analytic.grads.contains(p.name)) << p.name;
    double* values = p.master.data<double>();
    const auto loss_at = [&](int64_t i, double value) {
      const NoGrad no_grad;
      const double before = std::exchange(values[i], value);
      model.refresh_compute_copies();
      const double loss = model.loss(batch, options, 0.05).value().item();
      values[i] = before;
      return loss;
    };
    for (int n = 0; n < 6; ++n) {
      const auto i = static_cast<int64_t>(random() % static_cast<uint32_t>(p.master.numel()));
      constexpr double kStep = 1e-5;
      const double numeric = (loss_at(i, values[i] + kStep) - loss_at(i, values[i] - kStep)) / (2 * kStep);
      const double got = analytic.grads.at(p.name).item(i);
      EXPECT_NEAR(got, numeric, 1e-8 + 1e-6 * std::abs(numeric)) << p.name << " element " << i;
    }
  }
  set_num_threads(threads);
}

TEST(Transformer, GradientsMatchFiniteDifferencesWithMoba) {
  const TransformerConfig c = small_config();
  check_gradients(c, {moba_attention(4, 2), moba_attention(3, 3)});
}

TEST(Transformer, GradientsMatchFiniteDifferencesTiedAndMixed) {
  TransformerConfig c = small_config();
  c.tie_word_embeddings = true;
  c.num_hidden_layers = 3;
  check_gradients(c, {window_attention(5, false), full_attention(), moba_attention(4, 2)});
}

TEST(Transformer, LayersDifferAsTold) {
  const TransformerConfig c = small_config();
  Transformer model(c, DType::f32, 3);
  const TokenBatch batch = random_batch(c.vocab_size, {64}, 5);
  const NoGrad no_grad;
  std::set<double> losses;
  const auto loss_of = [&](LayerAttention first, LayerAttention second) {
    ForwardOptions options = uniform_options(c, first);
    options.layers[1] = second;
    return model.loss(batch, options, 0.05).value().item();
  };
  losses.insert(loss_of(full_attention(), full_attention()));
  losses.insert(loss_of(full_attention(), moba_attention(8, 2)));
  losses.insert(loss_of(moba_attention(8, 2), full_attention()));
  losses.insert(loss_of(window_attention(8), full_attention()));
  losses.insert(loss_of(window_attention(8, false), full_attention()));
  EXPECT_EQ(losses.size(), 5u);
  const double dense = loss_of(full_attention(), full_attention());
  EXPECT_NEAR(loss_of(moba_attention(8, 8), moba_attention(16, 100)), dense, 1e-5 * dense) << "K >= N is dense attention";
  EXPECT_NEAR(loss_of(window_attention(64), window_attention(1000)), dense, 1e-5 * dense);
}

TEST(Transformer, NaiveMobaSelectsTheSame) {
  const TransformerConfig c = small_config();
  Transformer model(c, DType::f32, 3);
  const TokenBatch batch = random_batch(c.vocab_size, {50, 30}, 5);
  LayerAttention layer = moba_attention(8, 3);
  const StepResult fast = forward_backward(model, batch, uniform_options(c, layer));
  layer.attention.naive = true;
  const StepResult naive = forward_backward(model, batch, uniform_options(c, layer));
  EXPECT_NEAR(fast.loss, naive.loss, 1e-6 * naive.loss);
  for (const auto& [name, grad] : naive.grads) EXPECT_TRUE(close_rms(name, as_doubles(fast.grads.at(name)), as_doubles(grad), 1e-4));
}

class TransformerDType : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, TransformerDType, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return dtype_name(info.param); });

TEST_P(TransformerDType, CheckpointingChangesNoBit) {
  const TransformerConfig c = small_config();
  Transformer model(c, GetParam(), 3);
  perturb_vectors(model, 11);
  const TokenBatch batch = random_batch(c.vocab_size, {70, 13}, 5);
  ForwardOptions options = uniform_options(c, moba_attention(8, 3));
  int routed = 0;
  options.on_selection = [&](int64_t, const Tensor& selected) {
    ++routed;
    EXPECT_EQ(selected.shape(), (Shape{83, 4, 3}));
  };
  const StepResult plain = forward_backward(model, batch, options);
  EXPECT_EQ(routed, 2);
  options.checkpoint_blocks = true;
  EXPECT_TRUE(same_step(forward_backward(model, batch, options), plain));
  EXPECT_EQ(routed, 4) << "once per layer and step";
  EXPECT_TRUE(same_step(forward_backward(model, batch, options), plain)) << "run after run";
}

// Recomputation must read the selection that the forward left, not route again: changing what it left changes the gradients.
TEST(Transformer, RecomputationReusesTheSelection) {
  const TransformerConfig c = small_config();
  Transformer model(c, DType::f32, 3);
  const TokenBatch batch = random_batch(c.vocab_size, {64}, 5);
  ForwardOptions options = uniform_options(c, moba_attention(8, 3));
  options.checkpoint_blocks = true;
  const StepResult plain = forward_backward(model, batch, options);
  options.on_selection = [](int64_t, const Tensor& selected) {
    auto* entries = selected.data<int32_t>();
    for (int64_t i = 0; i < selected.numel(); ++i)
      if (i % 3 != 0) entries[i] = -1;
  };
  const StepResult own_blocks_only = forward_backward(model, batch, options);
  EXPECT_EQ(own_blocks_only.loss, plain.loss);
  EXPECT_FALSE(same_step(own_blocks_only, plain));
}

TEST_P(TransformerDType, ThreadsChangeNoBit) {
  const TransformerConfig c = small_config();
  const int before = num_threads();
  const TokenBatch batch = random_batch(c.vocab_size, {150, 33, 70}, 5);
  std::vector<StepResult> results;
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    Transformer model(c, GetParam(), 3);
    ForwardOptions options = uniform_options(c, moba_attention(16, 3));
    options.layers[1] = full_attention();
    results.push_back(forward_backward(model, batch, options));
  }
  set_num_threads(before);
  EXPECT_TRUE(same_step(results[1], results[0]));
  EXPECT_TRUE(same_step(results[2], results[0]));
}

TEST_P(TransformerDType, PackedDocumentsEqualDocumentsAlone) {
  const TransformerConfig c = small_config();
  Transformer model(c, GetParam(), 3);
  perturb_vectors(model, 11);
  const std::vector<int64_t> lengths = {21, 1, 40, 7};
  const TokenBatch packed = random_batch(c.vocab_size, lengths, 5);
  const NoGrad no_grad;
  for (const LayerAttention& layer : {moba_attention(8, 2), full_attention(), window_attention(9)}) {
    const ForwardOptions options = uniform_options(c, layer);
    const Tensor together = model.logits(model.hidden(packed, options).value());
    int64_t begin = 0;
    for (const int64_t length : lengths) {
      const TokenBatch alone{
          packed.tokens.rows(begin, begin + length), {}, packed.positions.rows(begin, begin + length), one_sequence(length, length)};
      const Tensor logits = model.logits(model.hidden(alone, options).value());
      EXPECT_CLOSE_RMS(as_doubles(logits), as_doubles(together.rows(begin, begin + length)), 1e-6);
      begin += length;
    }
  }
}

// One plain gradient step on the masters: enough to leave the start.
void descend(Transformer& model, const TokenBatch& batch, const ForwardOptions& options) {
  const StepResult step = forward_backward(model, batch, options);
  for (Parameter& p : model.parameters()) {
    float* master = p.master.data<float>();
    const float* grad = step.grads.at(p.name).data<float>();
    for (int64_t i = 0; i < p.master.numel(); ++i) master[i] -= 0.05f * grad[i];
  }
  model.refresh_compute_copies();
}

TEST(Transformer, SwitchingAttentionEqualsAFreshModelWithTheOther) {
  const TransformerConfig c = small_config();
  const ForwardOptions moba = uniform_options(c, moba_attention(8, 2)), full = uniform_options(c, full_attention());
  for (const auto& [before, after] : {std::pair{moba, full}, {full, moba}}) {
    Transformer model(c, DType::f32, 3);
    for (uint32_t step = 0; step < 3; ++step) descend(model, random_batch(c.vocab_size, {64}, step), before);
    const TokenBatch next = random_batch(c.vocab_size, {64}, 99);
    const double switched = model.loss(next, after, 0.05).value().item();
    Transformer fresh(c, DType::f32, 1234);
    copy_weights(model, fresh);
    const double loaded = fresh.loss(next, after, 0.05).value().item();
    EXPECT_NEAR(switched, loaded, 1e-6 * loaded);
    EXPECT_GT(std::abs(switched - model.loss(next, before, 0.05).value().item()), 1e-6 * loaded) << "the other attention must matter";
  }
}

TEST(Transformer, Bf16FollowsFp32) {
  const TransformerConfig c = small_config();
  Transformer exact(c, DType::f32, 3), rounded(c, DType::bf16, 3);
  const TokenBatch batch = random_batch(c.vocab_size, {64}, 5);
  const StepResult want = forward_backward(exact, batch, uniform_options(c, full_attention()));
  const StepResult got = forward_backward(rounded, batch, uniform_options(c, full_attention()));
  EXPECT_NEAR(got.loss, want.loss, 0.01 * want.loss);
  for (const auto& [name, grad] : want.grads) EXPECT_LT(relative_rms(as_doubles(got.grads.at(name)), as_doubles(grad)), 0.05) << name;
  EXPECT_EQ(rounded.parameter("lm_head.weight").master.dtype(), DType::f32);
  EXPECT_EQ(rounded.parameter("lm_head.weight").value.dtype(), DType::bf16);
}

TEST(Transformer, WrongBatchesAreRefused) {
  const TransformerConfig c = small_config();
  Transformer model(c, DType::f32, 3);
  TokenBatch batch = random_batch(c.vocab_size, {10}, 5);
  ForwardOptions options = uniform_options(c, full_attention());
  options.layers.pop_back();
  EXPECT_THROW(model.loss(batch, options, 1), Error);
  options = uniform_options(c, full_attention());
  batch.targets = batch.targets.rows(0, 9);
  EXPECT_THROW(model.loss(batch, options, 1), Error);
  batch = random_batch(c.vocab_size, {10}, 5);
  batch.sequences = one_sequence(9, 9);
  EXPECT_THROW(model.loss(batch, options, 1), Error);
  batch = random_batch(c.vocab_size, {10}, 5);
  batch.tokens.data<int32_t>()[3] = 61;
  EXPECT_THROW(model.loss(batch, options, 1), Error);
}

}  // namespace
}  // namespace moba::test
