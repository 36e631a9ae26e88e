// The decoder: embedding, blocks of (RMSNorm, attention, RMSNorm, SwiGLU), final norm, head. Parameters carry Hugging Face names.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/autograd/ops.h"
#include "src/layers/config.h"
#include "src/moba/attention.h"

namespace moba {

// One trained tensor. `value` is the compute copy (model dtype); `master` the fp32 weights the optimizer owns. For fp32 models
// both share storage. Gradients live in value.grad(), fp32.
struct Parameter {
  std::string name;          // "model.layers.0.self_attn.q_proj.weight"
  Variable value;
  Tensor master;             // fp32 (f64 in f64 models)
  bool matrix = false;       // 2-d weight inside a block: Muon's share
  bool decay = false;        // weight decay applies (matrices and head, not norms, embeddings, key convolution)
};

// A packed batch of token sequences.
struct TokenBatch {
  Tensor tokens;             // i32 [T]
  Tensor targets;            // i32 [T], -1 = not counted; undefined for inference
  Tensor positions;          // i32 [T], 0-based in their sequence
  PackedSequences sequences;
};

struct ForwardOptions {
  std::vector<LayerAttention> layers;          // one per layer
  bool checkpoint_blocks = false;              // activation checkpointing per block
  kernels::RopeScaling rope_scaling;           // of the current stage
  std::function<void(int64_t layer, const Tensor& selected)> on_selection;  // routing statistics; may be empty
};

class KvCache;  // src/layers/kv_cache.h

class Transformer {
 public:
  // Weights initialised from (seed, parameter name): normal(0, initializer_range), norms 1, key_conv 0.
  Transformer(const TransformerConfig& config, DType dtype, uint64_t seed, Device device = {});
  ~Transformer();

  const TransformerConfig& config() const;
  DType dtype() const;
  std::vector<Parameter>& parameters();
  const Parameter& parameter(const std::string& name) const;  // Error if unknown

  // scale * sum of losses over counted targets, f64 [1]; token_losses (optional) receives f64 [T].
  Variable loss(const TokenBatch& batch, const ForwardOptions& options, double scale, Tensor* token_losses = nullptr);
  // Final-norm output [T, C], and logits f32 [rows, V] of given hidden rows (no gradient).
  Variable hidden(const TokenBatch& batch, const ForwardOptions& options, KvCache* cache = nullptr);
  Tensor logits(const Tensor& hidden_rows);

  // After masters changed (load, optimizer without fused copy): re-rounds compute copies, moves versions so packs are redone.
  void refresh_compute_copies();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moba
