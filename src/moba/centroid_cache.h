// Centroids of a growing key sequence, for sparse decode: a block's centroid is computed once, when it becomes history, so a
// decoded token costs O(N) scores instead of a pass over all cached keys. Chooses the same blocks as prefill: centroids and
// scores come from the same kernels.
#pragma once
#include "src/moba/attention.h"

namespace moba {

class CentroidCache {
 public:
  // Blocks for q [T, H, D], the newest T tokens of the one sequence whose keys are k [L, Hk, D]. k may only have grown since
  // the last call. Gates other than mean, and config.naive, are routed over the keys themselves.
  Tensor select(const Tensor& q, const Tensor& k, const AttentionConfig& config);
  void clear();

 private:
  void reserve(int64_t rows, const Tensor& k);
  void extend(const Tensor& k, const AttentionConfig& config);

  Tensor centroids_;  // f32 [room, Hk, D]; the first blocks_ rows are filled
  int64_t blocks_ = 0;
  int64_t chunk_size_ = 0;  // S the centroids belong to
};

}  // namespace moba
