// The decoder: embedding, blocks of (RMSNorm, attention, RMSNorm, SwiGLU), final norm, head. Parameters carry Hugging Face names.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/layers/config.h"
#include "src/layers/parameter.h"
#include "src/moba/attention.h"

namespace moba {

// A packed batch of token sequences.
struct TokenBatch {
  Tensor tokens;     // i32 [T]
  Tensor targets;    // i32 [T], -1 = not counted; undefined for inference
  Tensor positions;  // i32 [T], 0-based in their sequence
  PackedSequences sequences;
};

struct ForwardOptions {
  std::vector<LayerAttention> layers;                                       // one per layer
  bool checkpoint_blocks = false;                                           // activation checkpointing per block
  kernels::RopeScaling rope_scaling;                                        // of the current stage
  std::function<void(int64_t layer, const Tensor& selected)> on_selection;  // routing statistics; may be empty
  // What every layer's gate and attention see, [T, H, D] and [Tk, Hk, D] with positions applied; for analysis, may be empty.
  std::function<void(int64_t layer, const Tensor& q, const Tensor& k)> on_heads;
  // One per layer, or null: filled slots replace routing, empty ones receive what was routed. For gradient checks and tests.
  std::vector<SelectionSlot>* selections = nullptr;
};

// Every layer alike, with the model's own RoPE scaling.
ForwardOptions uniform_options(const TransformerConfig& config, const LayerAttention& layer);

class KvCache;  // src/layers/kv_cache.h

class Transformer {
 public:
  // Weights initialised from (seed, parameter name): normal(0, initializer_range), norms 1, key_conv 0. No seed: matrices are left
  // unset, for a checkpoint that fills them all (drawing numbers takes longer than reading a checkpoint).
  Transformer(const TransformerConfig& config, DType dtype, std::optional<uint64_t> seed, Device device = {});
  ~Transformer();

  const TransformerConfig& config() const;
  DType dtype() const;
  std::vector<Parameter>& parameters();
  const Parameter& parameter(const std::string& name) const;  // Error if unknown

  // scale * sum of losses over counted targets, f64 [1]; token_losses (optional) receives f64 [T].
  Variable loss(const TokenBatch& batch, const ForwardOptions& options, double scale, Tensor* token_losses = nullptr);
  // Final-norm output [T, C], and logits f32 [rows, V] of given hidden rows (no gradient).
  // With a cache: the batch continues the cached sequence (one sequence, positions cache.length() ..); no gradient.
  Variable hidden(const TokenBatch& batch, const ForwardOptions& options, KvCache* cache = nullptr);
  Tensor logits(const Tensor& hidden_rows);

  // After masters changed (load): rounds the compute copies again.
  void refresh_compute_copies();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moba
