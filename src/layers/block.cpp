#include "src/layers/block.h"

#include <cmath>

namespace moba {
namespace {

// Every block adds two terms to the residual stream; scaling their matrices by 1/sqrt(2 * layers) keeps its variance at the
// start independent of depth (GPT-2 practice).
double residual_stddev(const TransformerConfig& c) {
  return c.initializer_range / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers));
}

}  // namespace

Block::Block(ParameterStore& store, const std::string& prefix, const TransformerConfig& c)
    : input_norm_(store, prefix + "input_layernorm.weight", c.hidden_size, c.rms_norm_eps),
      post_attention_norm_(store, prefix + "post_attention_layernorm.weight", c.hidden_size, c.rms_norm_eps),
      attention_(store, prefix + "self_attn.", c, residual_stddev(c)),
      mlp_(store, prefix + "mlp.", c, residual_stddev(c)) {}

Variable Block::forward(const Variable& x, const LayerInputs& in, SelectionSlot* slot) {
  return finish(attention_.forward(input_norm_(x), in, slot), x);
}

Variable Block::forward_cached(const Variable& x, const LayerInputs& in, KvCache::Layer& cache, SelectionSlot* slot) {
  return finish(attention_.forward_cached(input_norm_(x), in, cache, slot), x);
}

Variable Block::finish(const Variable& attended, const Variable& x) {
  const auto [sum, normed] = post_attention_norm_.add(attended, x);
  return ops::add(sum, mlp_(normed));
}

}  // namespace moba
