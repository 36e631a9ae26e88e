// The decoder's shape, spelled as in Hugging Face's Llama config.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/rope/rope.h"
#include "src/moba/config.h"

namespace moba {

// Attention of one layer at one step, after every override was applied.
struct LayerAttention {
  AttentionConfig attention;
  bool rope = true;  // false: no position encoding in this layer
  bool operator==(const LayerAttention&) const = default;
};

struct TransformerConfig {
  int64_t hidden_size = 0;        // C
  int64_t intermediate_size = 0;  // F
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;  // H
  int64_t num_key_value_heads = 0;  // Hk
  int64_t head_dim = 0;             // D; 0 = hidden_size / num_attention_heads
  int64_t vocab_size = 0;           // V
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000;
  kernels::RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  bool qk_norm = false;  // RMSNorm over head_dim of q and k before RoPE
  int64_t key_conv = 0;  // 0, 3 or 5

  int64_t resolved_head_dim() const { return head_dim != 0 ? head_dim : hidden_size / num_attention_heads; }
};

// Throws naming the key ("model.hidden_size ...").
void validate(const TransformerConfig& config);
int64_t parameter_count(const TransformerConfig& config);
std::vector<int64_t> parameter_elements(const TransformerConfig& config);  // of each tensor, in no particular order
int64_t embedding_parameter_count(const TransformerConfig& config);        // table (+ untied head)
int64_t matrix_parameter_count(const TransformerConfig& config);           // all matrices in products: head included, look-up not

// Average over queries of the keys read by one query of a sequence of length L (exact for window/full/moba with all candidates).
double selected_pairs_per_query(const AttentionConfig& attention, int64_t sequence_length);
// 6 * matrix parameters + 12*D*H*(pairs per query) per layer; FLOPs of one trained token.
double model_flops_per_token(const TransformerConfig& config, const std::vector<LayerAttention>& layers, int64_t sequence_length);

}  // namespace moba
