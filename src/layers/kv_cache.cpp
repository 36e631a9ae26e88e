#include "src/layers/kv_cache.h"

#include "kernels/key_conv/key_conv.h"

namespace moba {

KvCache::KvCache(const TransformerConfig& config, int64_t capacity, DType dtype, Device device) : capacity_(capacity) {
  validate(config);
  MOBA_CHECK(capacity >= 1, "KV cache: capacity must be >= 1 token, got {}", capacity);
  const int64_t kv_heads = config.num_key_value_heads, head_dim = config.resolved_head_dim();
  layers_.resize(static_cast<size_t>(config.num_hidden_layers));
  for (Layer& layer : layers_) {
    layer.k_ = Tensor::empty({capacity, kv_heads, head_dim}, dtype, device);
    layer.v_ = Tensor::empty({capacity, kv_heads, head_dim}, dtype, device);
    if (config.key_conv > 0) layer.conv_history_ = Tensor::zeros({config.key_conv - 1, kv_heads * head_dim}, dtype, device);
  }
}

void KvCache::clear() {
  for (Layer& layer : layers_) {
    layer.length_ = 0;
    layer.centroids.clear();
    if (layer.conv_history_.defined()) layer.conv_history_.fill(0);
  }
}

Tensor KvCache::Layer::convolve(const Tensor& k, const Tensor& weight) {
  const int64_t tokens = k.size(0), kept = weight.size(1) - 1;
  const Tensor cu_seqlens = one_sequence(tokens, tokens).cu_seqlens_q;
  Tensor out = Tensor::empty(k.shape(), k.dtype(), k.device());
  kernels::KeyConvArgs args;
  args.stream = k.stream();
  args.dtype = k.dtype();
  args.batch = 1;
  args.tokens = tokens;
  args.channels = k.size(1);
  args.width = weight.size(1);
  args.cu_seqlens = cu_seqlens.data<int32_t>();
  args.k = k.raw();
  args.weight = weight.raw();
  args.history = conv_history_.raw();
  args.out = out.raw();
  kernels::key_conv_forward(args);

  // The next history: the last `kept` rows of (history, k).
  Tensor next = Tensor::empty(conv_history_.shape(), k.dtype(), k.device());
  const int64_t from_k = tokens < kept ? tokens : kept;
  if (from_k < kept) next.rows(0, kept - from_k).copy_from(conv_history_.rows(from_k, kept));
  if (from_k > 0) next.rows(kept - from_k, kept).copy_from(k.rows(tokens - from_k, tokens));
  conv_history_ = next;
  return out;
}

void KvCache::Layer::append(const Tensor& k, const Tensor& v) {
  const int64_t tokens = k.size(0), capacity = k_.size(0);
  MOBA_CHECK(length_ + tokens <= capacity, "KV cache: {} tokens do not fit, {} of {} are in use", tokens, length_, capacity);
  k_.rows(length_, length_ + tokens).copy_from(k);
  v_.rows(length_, length_ + tokens).copy_from(v);
  length_ += tokens;
}

}  // namespace moba
