#include "src/layers/self_attention.h"

namespace moba {

SelfAttention::SelfAttention(ParameterStore& store, const std::string& prefix, const TransformerConfig& c, double residual_stddev)
    : heads_(c.num_attention_heads),
      kv_heads_(c.num_key_value_heads),
      head_dim_(c.resolved_head_dim()),
      q_proj_(store, prefix + "q_proj.weight", heads_ * head_dim_, c.hidden_size, c.initializer_range),
      k_proj_(store, prefix + "k_proj.weight", kv_heads_ * head_dim_, c.hidden_size, c.initializer_range),
      v_proj_(store, prefix + "v_proj.weight", kv_heads_ * head_dim_, c.hidden_size, c.initializer_range),
      o_proj_(store, prefix + "o_proj.weight", c.hidden_size, heads_ * head_dim_, residual_stddev) {
  if (c.qk_norm) {
    q_norm_.emplace(store, prefix + "q_norm.weight", head_dim_, c.rms_norm_eps);
    k_norm_.emplace(store, prefix + "k_norm.weight", head_dim_, c.rms_norm_eps);
  }
  if (c.key_conv > 0) k_conv_ = store.key_conv(prefix + "k_conv.weight", kv_heads_ * head_dim_, c.key_conv);
}

SelfAttention::Heads SelfAttention::heads(const Variable& x, Variable k, const LayerInputs& in) {
  const int64_t tokens = x.shape()[0];
  Variable q = ops::reshape(q_proj_(x), {tokens, heads_, head_dim_});
  k = ops::reshape(k, {tokens, kv_heads_, head_dim_});
  if (q_norm_) {
    q = (*q_norm_)(q);
    k = (*k_norm_)(k);
  }
  if (in.layer.rope) {
    q = ops::rope(q, in.positions, in.inv_freq);
    k = ops::rope(k, in.positions, in.inv_freq);
  }
  return {q, k, ops::reshape(v_proj_(x), {tokens, kv_heads_, head_dim_})};
}

Variable SelfAttention::project(const Variable& attended) {
  return o_proj_(ops::reshape(attended, {attended.shape()[0], heads_ * head_dim_}));
}

Variable SelfAttention::forward(const Variable& x, const LayerInputs& in, SelectionSlot* slot) {
  Variable k = k_proj_(x);
  if (k_conv_.defined()) k = ops::key_conv(k, k_conv_, in.sequences.cu_seqlens_q);
  const Heads h = heads(x, k, in);
  if (in.on_heads) in.on_heads(h.q.value(), h.k.value());
  return project(attention(h.q, h.k, h.v, in.sequences, in.layer.attention, slot));
}

Variable SelfAttention::forward_cached(const Variable& x, const LayerInputs& in, KvCache::Layer& cache, SelectionSlot* slot) {
  Variable k = k_proj_(x);
  if (k_conv_.defined()) k = Variable(cache.convolve(k.value(), k_conv_.value()));
  const Heads h = heads(x, k, in);
  cache.append(h.k.value(), h.v.value());
  const Variable keys(cache.keys()), values(cache.values());
  SelectionSlot own;
  if (!slot) slot = &own;
  if (in.layer.attention.type == kernels::AttentionType::moba)
    slot->selected = cache.centroids.select(h.q.value(), keys.value(), in.layer.attention);
  return project(attention(h.q, keys, values, in.sequences, in.layer.attention, slot));
}

}  // namespace moba
