#include "src/train/training_memory.h"

#include <algorithm>

namespace moba {
namespace {

constexpr double kProcessBytes = 60e6;           // program, libraries, thread stacks, buffers of readers
constexpr double kHeadLogits = double{1 << 24};  // elements of a chunk of logits (ops/linear_cross_entropy.cpp)

// Elements that one token leaves behind in one block for the backward pass.
double saved_elements(const TransformerConfig& c) {
  const double width = static_cast<double>(c.hidden_size), ffn = static_cast<double>(c.intermediate_size);
  const double q = static_cast<double>(c.num_attention_heads * c.head_dim), kv = static_cast<double>(c.num_key_value_heads * c.head_dim);
  const double conv_and_norm = (c.key_conv > 0 ? kv : 0) + (c.qk_norm ? q + kv : 0);
  const double residual = 2 * width;  // both sums
  const double normed = 2 * width;    // inputs of q/k/v and of gate/up
  return residual + normed + 2 * q + 2 * kv + conv_and_norm + 3 * ffn;
}

double block_bytes_per_token(const TransformerConfig& c, const LayerAttention& layer, double element) {
  double bytes = saved_elements(c) * element + 4.0 * static_cast<double>(c.num_attention_heads);  // and lse
  if (layer.attention.type == kernels::AttentionType::moba)
    bytes += 4.0 * static_cast<double>(c.num_attention_heads * layer.attention.moba.topk);
  return bytes;
}

}  // namespace

int64_t predicted_training_memory(const Recipe& recipe, DType dtype, const StepPlan& plan) {
  const TransformerConfig& c = recipe.model;
  const double element = static_cast<double>(dtype_size(dtype));
  const double parameters = static_cast<double>(parameter_count(c)),
               matrices = static_cast<double>(matrix_parameter_count(c) - c.vocab_size * c.hidden_size);
  const double moments = recipe.optimizer.name == OptimizerConfig::Name::adamw ? 8 : 4;
  const double fixed = parameters * (4 + 4 + moments + (dtype == DType::f32 ? 0 : element)) + 2 * matrices * element;

  const double tokens = static_cast<double>(recipe.micro_batch_size * plan.sequence_length);
  double activations = 0, largest_block = 0;
  for (const LayerAttention& layer : plan.forward.layers) {
    const double block = block_bytes_per_token(c, layer, element);
    largest_block = std::max(largest_block, block);
    activations += recipe.checkpoint_blocks ? static_cast<double>(c.hidden_size) * element : block;
  }
  // In the backward pass one block is whole again and has gradients of about the same size beside it.
  activations += largest_block * (recipe.checkpoint_blocks ? 2 : 1);
  const double vocab = static_cast<double>(c.vocab_size), width = static_cast<double>(c.hidden_size);
  const double logits = std::min(kHeadLogits, tokens * vocab) * (4 + element);
  const double head = logits + tokens * width * 4 + vocab * width * 4;
  return static_cast<int64_t>(kProcessBytes + fixed + tokens * activations + head);
}

}  // namespace moba
