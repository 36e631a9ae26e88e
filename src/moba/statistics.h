// What the gate chose: compact sums over any number of batches, and the block-use picture of one sequence.
// All sums are integers, so they depend neither on threads nor on the order of batches.
#pragma once
#include <cstdint>
#include <vector>

#include "src/moba/attention.h"

namespace moba {

// Sums over the entries of `selected` of one layer and head (kv head when the selection is per group).
struct HeadRouting {
  int64_t queries = 0;
  int64_t own_entries = 0;  // own block, always chosen: one per query
  int64_t history_entries = 0;
  int64_t distance_blocks = 0;       // sum over history entries of own block - chosen block
  int64_t distance_half_tokens = 0;  // sum of 2 * (query position - middle of the chosen block)
  std::vector<int64_t> chosen;       // [blocks seen] how often block j of a sequence was chosen as history

  double own_share() const;             // own entries among all entries
  double mean_distance_blocks() const;  // over history entries; 0 if there are none
  double mean_distance_tokens() const;
  void merge(const HeadRouting& other);
};

class RoutingStatistics {
 public:
  // selected [T, heads, slots] of one layer, as ForwardOptions::on_selection hands it over.
  void add(int64_t layer, const Tensor& selected, const PackedSequences& sequences, int64_t chunk_size);

  void merge(const RoutingStatistics& other);
  // All sums as one row of integers, for another process to merge.
  std::vector<int64_t> packed() const;
  static RoutingStatistics unpacked(const std::vector<int64_t>& row);

  bool empty() const { return layers_.empty(); }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  const std::vector<HeadRouting>& heads(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)];
  }                           // empty: layer without routing
  HeadRouting total() const;  // all layers and heads
  HeadRouting layer_total(int64_t layer) const;

 private:
  std::vector<std::vector<HeadRouting>> layers_;
};

// share[head][i][j] = share of the queries of query block i that read key block j (own block: 1), row-major [heads, N, N].
struct BlockUse {
  int64_t heads = 0, blocks = 0;
  std::vector<float> share;
  float at(int64_t head, int64_t query_block, int64_t key_block) const {
    return share[static_cast<size_t>((head * blocks + query_block) * blocks + key_block)];
  }
};
BlockUse block_use(const Tensor& selected, const PackedSequences& sequences, int64_t chunk_size, int64_t sequence = 0);

}  // namespace moba
