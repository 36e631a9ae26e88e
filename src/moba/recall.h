// How much of full attention's mass a selection keeps: for a query, the sum of its softmax weights over the tokens that MoBA would
// read. The question before switching a trained model to MoBA, and a measure of the gate: no choice of as many blocks keeps more
// than `best`.
#pragma once
#include <cstdint>
#include <vector>

#include "src/moba/attention.h"

namespace moba {

struct RecallSetting {
  int64_t chunk_size = 0, topk = 0;  // S, K
};

// Sums over queries of one layer, head and setting.
struct MassKept {
  int64_t queries = 0;
  int64_t skipping = 0;      // queries with more blocks in their past than they read
  double kept = 0;           // share of mass kept, summed over all queries
  double kept_skipping = 0;  // the same over skipping queries only
  double best = 0;           // by the K-1 past blocks of the largest mass, summed over all queries
  double read = 0;           // share of past tokens read, summed over all queries
  void merge(const MassKept& other);
  double share() const { return queries ? kept / static_cast<double>(queries) : 1; }
  double share_skipping() const { return skipping ? kept_skipping / static_cast<double>(skipping) : 1; }
  double share_best() const { return queries ? best / static_cast<double>(queries) : 1; }
  double share_read() const { return queries ? read / static_cast<double>(queries) : 1; }
};

// [setting][head] for q [T, H, D] and k [T, Hk, D] of a packed batch. Scores are computed for kRecallRows queries of a head at a time:
// memory grows with T, not with its square. Sums run in the order of queries, so they do not depend on threads.
inline constexpr int64_t kRecallRows = 64;
std::vector<std::vector<MassKept>> mass_kept(const Tensor& q, const Tensor& k, const PackedSequences& sequences,
                                             const std::vector<RecallSetting>& settings, kernels::Gate gate = kernels::Gate::mean);

}  // namespace moba
