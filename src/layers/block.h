// One decoder block: x + attention(norm(x)), then + mlp(norm(.)).
#pragma once
#include "src/layers/mlp.h"
#include "src/layers/self_attention.h"

namespace moba {

class Block {
 public:
  Block(ParameterStore& store, const std::string& prefix, const TransformerConfig& config);

  // x [T, C] -> [T, C]. `slot` holds a MoBA layer's selection: reused if filled, so recomputation never routes again.
  Variable forward(const Variable& x, const LayerInputs& in, SelectionSlot* slot);
  Variable forward_cached(const Variable& x, const LayerInputs& in, KvCache::Layer& cache, SelectionSlot* slot);

 private:
  Variable finish(const Variable& attended, const Variable& x);

  RmsNorm input_norm_, post_attention_norm_;
  SelfAttention attention_;
  Mlp mlp_;
};

}  // namespace moba
