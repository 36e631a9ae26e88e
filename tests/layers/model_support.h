// Small models and batches for the tests of this folder.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <span>

#include "src/layers/transformer.h"
#include "tests/support/compare.h"

namespace moba::test {

inline LayerAttention full_attention() { return {{.type = kernels::AttentionType::full, .moba = {}}, true}; }
inline LayerAttention moba_attention(int64_t chunk_size, int64_t topk) {
  return {{.type = kernels::AttentionType::moba, .moba = {.chunk_size = chunk_size, .topk = topk}}, true};
}
inline LayerAttention window_attention(int64_t window, bool rope = true) {
  return {{.type = kernels::AttentionType::window, .moba = {}, .window = window}, rope};
}

// GQA, QK-norm and key convolution on: every part of the decoder takes part.
inline TransformerConfig small_config() {
  TransformerConfig c;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 8;
  c.vocab_size = 61;
  c.max_position_embeddings = 256;
  c.initializer_range = 0.15;
  c.qk_norm = true;
  c.key_conv = 3;
  return c;
}

// Random tokens in sequences of the given lengths; every seventh target is not counted.
inline TokenBatch random_batch(int64_t vocab, const std::vector<int64_t>& lengths, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens, targets, positions, cu{0};
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      tokens.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab)));
      targets.push_back(targets.size() % 7 == 3 ? -1 : static_cast<int32_t>(random() % static_cast<uint32_t>(vocab)));
      positions.push_back(static_cast<int32_t>(i));
    }
    cu.push_back(static_cast<int32_t>(tokens.size()));
  }
  const auto count = static_cast<int64_t>(tokens.size());
  const Tensor cu_seqlens = Tensor::from<int32_t>(cu, {static_cast<int64_t>(cu.size())});
  return {Tensor::from<int32_t>(tokens, {count}),
          Tensor::from<int32_t>(targets, {count}),
          Tensor::from<int32_t>(positions, {count}),
          {cu_seqlens, cu_seqlens}};
}

// Key convolutions start at zero and norms at one; tests want them to matter.
inline void perturb_vectors(Transformer& model, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 0.3);
  for (Parameter& p : model.parameters()) {
    if (p.decay || p.name == "model.embed_tokens.weight") continue;
    std::vector<float> values(static_cast<size_t>(p.master.numel()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(p.master.item(static_cast<int64_t>(i)) + normal(random));
    p.master.copy_from(Tensor::from<float>(values, p.master.shape()));
  }
  model.refresh_compute_copies();
}

inline void copy_weights(Transformer& from, Transformer& to) {
  for (Parameter& p : to.parameters()) p.master.copy_from(from.parameter(p.name).master);
  to.refresh_compute_copies();
}

struct StepResult {
  double loss = 0;
  std::map<std::string, Tensor> grads;
};

inline StepResult forward_backward(Transformer& model, const TokenBatch& batch, const ForwardOptions& options) {
  for (Parameter& p : model.parameters()) p.value.zero_grad();
  const Variable loss = model.loss(batch, options, 0.05);
  StepResult result;
  result.loss = loss.value().item();
  backward(loss);
  for (Parameter& p : model.parameters())
    if (p.value.has_grad()) result.grads[p.name] = p.value.grad().clone();
  return result;
}

inline ::testing::AssertionResult same_step(const StepResult& got, const StepResult& want) {
  if (got.loss != want.loss) return ::testing::AssertionFailure() << "loss " << got.loss << ", want " << want.loss;
  if (got.grads.size() != want.grads.size())
    return ::testing::AssertionFailure() << got.grads.size() << " gradients, want " << want.grads.size();
  for (const auto& [name, grad] : want.grads) {
    const Tensor& other = got.grads.at(name);
    const auto result = same_bits(name, other.raw(), grad.raw(), static_cast<size_t>(grad.nbytes()));
    if (!result) return result;
  }
  return ::testing::AssertionSuccess();
}

inline std::vector<double> as_doubles(const Tensor& t) { return widen(t.raw(), t.dtype(), t.numel()); }

}  // namespace moba::test
