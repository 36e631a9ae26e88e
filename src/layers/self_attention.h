// Self-attention of one block: projections, key convolution, QK-norm, RoPE, then the attention its LayerAttention names.
#pragma once
#include <functional>
#include <optional>

#include "src/layers/config.h"
#include "src/layers/kv_cache.h"
#include "src/layers/linear.h"
#include "src/layers/rms_norm.h"
#include "src/moba/attention.h"

namespace moba {

// What a layer needs besides activations. Kept by value until backward, so recomputation sees what the forward saw.
struct LayerInputs {
  Tensor positions;  // i32 [T]
  Tensor inv_freq;   // f64 [D/2]
  PackedSequences sequences;
  LayerAttention layer;
  std::function<void(const Tensor& q, const Tensor& k)> on_heads;  // see ForwardOptions; may be empty
};

class SelfAttention {
 public:
  // residual_stddev: of o_proj, which writes into the residual stream.
  SelfAttention(ParameterStore& store, const std::string& prefix, const TransformerConfig& c, double residual_stddev);

  // x [T, C] -> [T, C]
  Variable forward(const Variable& x, const LayerInputs& in, SelectionSlot* slot);
  // Continues the sequence in `cache`, which receives the new keys and values. No gradient.
  Variable forward_cached(const Variable& x, const LayerInputs& in, KvCache::Layer& cache, SelectionSlot* slot);

 private:
  struct Heads {
    Variable q, k, v;  // [T, H, D], [T, Hk, D], [T, Hk, D]
  };
  // QK-norm and RoPE after the key convolution gave k [T, Hk*D].
  Heads heads(const Variable& x, Variable k, const LayerInputs& in);
  Variable project(const Variable& attended);

  int64_t heads_, kv_heads_, head_dim_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_;
  std::optional<RmsNorm> q_norm_, k_norm_;
  Variable k_conv_;  // [Hk*D, W], or undefined
};

}  // namespace moba
