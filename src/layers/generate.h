// Continuing a prompt: prefill with the model's attention (in chunks), then one token at a time over the KV cache.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "src/layers/transformer.h"

namespace moba {

struct GenerateOptions {
  std::vector<LayerAttention> prefill;  // attention of each layer over the prompt
  bool moba_decode = false;             // MoBA layers stay MoBA while decoding; else they read the whole cache (the paper's set-up)
  kernels::RopeScaling rope_scaling;
  int64_t prefill_chunk = 4096;  // prompt tokens per forward; does not change the result
  int64_t max_new_tokens = 128;
  double temperature = 0;                       // 0 = greedy
  double top_p = 1;                             // (0, 1]
  uint64_t seed = 0;                            // same seed, same text
  int64_t eos_token_id = -1;                    // stops after it; -1 = never
  int64_t vocabulary = 0;                       // logits from here on are surplus and never chosen; 0 = the model's vocab_size
  std::vector<int32_t> never;                   // ids never chosen either
  std::function<void(int32_t token)> on_token;  // called for every new token; may be empty
};

// Throws on values out of range, naming the option.
void validate(const GenerateOptions& options, const TransformerConfig& config);

// The new tokens, EOS included if it came.
std::vector<int32_t> generate(Transformer& model, std::span<const int32_t> prompt, const GenerateOptions& options);

// Attention of each layer while decoding.
std::vector<LayerAttention> decode_layers(const GenerateOptions& options);

}  // namespace moba
