#include "src/layers/config.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace moba {
namespace {

void check_positive(const char* key, int64_t value) { MOBA_CHECK(value >= 1, "model.{} must be >= 1, got {}", key, value); }
void check_positive(const char* key, double value) {
  MOBA_CHECK(std::isfinite(value) && value > 0, "model.{} must be finite and > 0, got {}", key, value);
}

// Matrices of one block: q, k, v, o projections and the three of the MLP.
int64_t block_matrix_parameters(const TransformerConfig& c) {
  const int64_t head_dim = c.resolved_head_dim();
  return c.hidden_size * head_dim * 2 * (c.num_attention_heads + c.num_key_value_heads) + 3 * c.hidden_size * c.intermediate_size;
}

// Norms and key convolution of one block.
int64_t block_vector_parameters(const TransformerConfig& c) {
  const int64_t head_dim = c.resolved_head_dim();
  return 2 * c.hidden_size + (c.qk_norm ? 2 * head_dim : 0) + c.key_conv * c.num_key_value_heads * head_dim;
}

}  // namespace

void validate(const TransformerConfig& c) {
  check_positive("hidden_size", c.hidden_size);
  check_positive("intermediate_size", c.intermediate_size);
  check_positive("num_hidden_layers", c.num_hidden_layers);
  check_positive("num_attention_heads", c.num_attention_heads);
  check_positive("num_key_value_heads", c.num_key_value_heads);
  check_positive("vocab_size", c.vocab_size);
  check_positive("max_position_embeddings", c.max_position_embeddings);
  check_positive("rms_norm_eps", c.rms_norm_eps);
  check_positive("rope_theta", c.rope_theta);
  check_positive("rope_scaling.factor", c.rope_scaling.factor);
  check_positive("rope_scaling.position_interpolation", c.rope_scaling.position_interpolation);
  MOBA_CHECK(std::isfinite(c.initializer_range) && c.initializer_range >= 0, "model.initializer_range must be finite and >= 0, got {}",
             c.initializer_range);
  MOBA_CHECK(c.num_attention_heads % c.num_key_value_heads == 0,
             "model.num_attention_heads ({}) must be a multiple of model.num_key_value_heads ({})", c.num_attention_heads,
             c.num_key_value_heads);
  MOBA_CHECK(c.head_dim != 0 || c.hidden_size % c.num_attention_heads == 0,
             "model.hidden_size ({}) must be a multiple of model.num_attention_heads ({}), or set model.head_dim", c.hidden_size,
             c.num_attention_heads);
  const int64_t head_dim = c.resolved_head_dim();
  MOBA_CHECK(head_dim >= 2 && head_dim <= 256 && head_dim % 2 == 0,
             "model.head_dim must be even (RoPE rotates pairs) and in 2 .. 256, got {}", head_dim);
  MOBA_CHECK(c.key_conv == 0 || c.key_conv == 3 || c.key_conv == 5, "model.attention.key_conv must be 0, 3 or 5, got {}", c.key_conv);
}

int64_t embedding_parameter_count(const TransformerConfig& c) { return (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size; }

int64_t parameter_count(const TransformerConfig& c) {
  return embedding_parameter_count(c) + c.num_hidden_layers * (block_matrix_parameters(c) + block_vector_parameters(c)) + c.hidden_size;
}

std::vector<int64_t> parameter_elements(const TransformerConfig& c) {
  const int64_t q = c.num_attention_heads * c.resolved_head_dim(), kv = c.num_key_value_heads * c.resolved_head_dim();
  std::vector<int64_t> out(c.tie_word_embeddings ? 1 : 2, c.vocab_size * c.hidden_size);
  out.push_back(c.hidden_size);
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    out.insert(out.end(), {c.hidden_size, c.hidden_size});
    out.insert(out.end(), {c.hidden_size * q, c.hidden_size * kv, c.hidden_size * kv, c.hidden_size * q});
    out.insert(out.end(), 3, c.hidden_size * c.intermediate_size);
    if (c.qk_norm) out.insert(out.end(), 2, c.resolved_head_dim());
    if (c.key_conv > 0) out.push_back(c.key_conv * kv);
  }
  return out;
}

int64_t matrix_parameter_count(const TransformerConfig& c) {
  return c.num_hidden_layers * block_matrix_parameters(c) + c.vocab_size * c.hidden_size;
}

double selected_pairs_per_query(const AttentionConfig& attention, int64_t sequence_length) {
  using kernels::AttentionType;
  const double length = static_cast<double>(sequence_length);
  if (sequence_length <= 0) return 0;
  if (attention.type == AttentionType::full) return (length + 1) / 2;
  double pairs = 0;
  if (attention.type == AttentionType::window) {
    // Positions 0 .. w-1 read 1 .. w keys, the others w.
    const double w = static_cast<double>(std::min(attention.window, sequence_length));
    pairs = w * (w + 1) / 2 + (length - w) * w;
    return pairs / length;
  }
  const int64_t chunk_size = attention.moba.chunk_size;
  for (int64_t begin = 0, block = 0; begin < sequence_length; begin += chunk_size, ++block) {
    const double queries = static_cast<double>(std::min(chunk_size, sequence_length - begin));
    const double history = static_cast<double>(std::min(attention.moba.topk - 1, block) * chunk_size);
    pairs += queries * (queries + 1) / 2 + queries * history;
  }
  return pairs / length;
}

double model_flops_per_token(const TransformerConfig& c, const std::vector<LayerAttention>& layers, int64_t sequence_length) {
  double flops = 6 * static_cast<double>(matrix_parameter_count(c));
  for (const LayerAttention& layer : layers)
    flops += 12 * static_cast<double>(c.resolved_head_dim() * c.num_attention_heads) *
             selected_pairs_per_query(layer.attention, sequence_length);
  return flops;
}

}  // namespace moba
