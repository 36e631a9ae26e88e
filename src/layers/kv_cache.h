// Keys and values of one growing sequence, for generation. Prefill may come in chunks of any size.
#pragma once
#include <vector>

#include "src/layers/config.h"
#include "src/moba/centroid_cache.h"

namespace moba {

class KvCache {
 public:
  KvCache(const TransformerConfig& config, int64_t capacity, DType dtype, Device device = {});

  int64_t capacity() const { return capacity_; }
  int64_t length() const { return layers_.front().length_; }  // tokens cached, between two calls of Transformer::hidden
  void clear();

  class Layer {
   public:
    // k'_t of new projected keys k [T, Hk*D] by weight [Hk*D, W]; keeps the last W-1 projected keys for the next call.
    Tensor convolve(const Tensor& k, const Tensor& weight);
    void append(const Tensor& k, const Tensor& v);       // [T, Hk, D] as attention sees them
    Tensor keys() const { return k_.rows(0, length_); }  // [length, Hk, D], a view
    Tensor values() const { return v_.rows(0, length_); }
    CentroidCache centroids;  // of MoBA layers, filled by sparse decode

   private:
    friend class KvCache;
    Tensor k_, v_;         // [capacity, Hk, D]
    Tensor conv_history_;  // [W-1, Hk*D] projected keys, oldest first; zeros before the sequence's start
    int64_t length_ = 0;
  };
  Layer& layer(int64_t i) { return layers_[static_cast<size_t>(i)]; }

 private:
  int64_t capacity_;
  std::vector<Layer> layers_;
};

}  // namespace moba
