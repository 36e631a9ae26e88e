#include "src/moba/centroid_cache.h"

#include <algorithm>

namespace moba {

void CentroidCache::clear() {
  centroids_ = {};
  blocks_ = 0;
  chunk_size_ = 0;
}

void CentroidCache::reserve(int64_t rows, const Tensor& k) {
  if (centroids_.defined() && centroids_.size(0) >= rows) return;
  Tensor grown = Tensor::zeros({std::max<int64_t>(2 * rows, 16), k.size(1), k.size(2)}, DType::f32, k.device());
  if (blocks_ > 0) grown.rows(0, blocks_).copy_from(centroids_.rows(0, blocks_));
  centroids_ = grown;
}

// Adds the blocks that became history: those before the newest key's block. A sequence's last block gets no centroid, so the
// kernel run over the keys from the first missing block on returns exactly the missing ones.
void CentroidCache::extend(const Tensor& k, const AttentionConfig& config) {
  const int64_t chunk_size = config.moba.chunk_size, length = k.size(0);
  if (chunk_size != chunk_size_) clear();
  chunk_size_ = chunk_size;
  const int64_t history = (length - 1) / chunk_size;
  MOBA_CHECK(history >= blocks_, "centroid cache: the key sequence became shorter ({} tokens, {} blocks cached)", length, blocks_);
  reserve(history + 1, k);
  if (history == blocks_) return;
  const Tensor fresh = k.rows(blocks_ * chunk_size, length);
  const Tensor cu = one_sequence(fresh.size(0), fresh.size(0)).cu_seqlens_k;
  kernels::MobaGateArgs args;
  args.stream = k.stream();
  args.shape = {.batch = 1,
                .cu_seqlens_q = cu.data<int32_t>(),
                .cu_seqlens_k = cu.data<int32_t>(),
                .tokens_q = fresh.size(0),
                .tokens_k = fresh.size(0),
                .heads = k.size(1),
                .kv_heads = k.size(1),
                .head_dim = k.size(2)};
  args.dtype = k.dtype();
  args.chunk_size = chunk_size;
  args.topk = config.moba.topk;
  args.q = fresh.raw();
  args.k = fresh.raw();
  kernels::moba_centroids(args, centroids_.rows(blocks_, history).data<float>());
  blocks_ = history;
}

Tensor CentroidCache::select(const Tensor& q, const Tensor& k, const AttentionConfig& config) {
  const bool one_token = q.size(0) == 1 && q.dtype() != DType::f64;
  if (!one_token || config.naive || config.moba.gate != kernels::Gate::mean)
    return moba_select(q, k, one_sequence(q.size(0), k.size(0)), config);
  extend(k, config);
  // The cached centroids are a key sequence with blocks of one token each: the mean of one key is the key itself, and the
  // query's own block is the last one, whose key is never looked at (any row does).
  AttentionConfig one_key_blocks = config;
  one_key_blocks.moba.chunk_size = 1;
  const int64_t keys = blocks_ + 1;
  return moba_select(q.to(DType::f32), centroids_.rows(0, keys), one_sequence(1, keys), one_key_blocks);
}

}  // namespace moba
