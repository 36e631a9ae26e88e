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

// Sums over queries of one layer, head and setting. Only queries that skip something count: the others keep everything and would hide
// what is lost, the more so the shorter the sequence.
struct MassKept {
  int64_t queries = 0;   // all
  int64_t skipping = 0;  // with more blocks in their past than they read
  double kept = 0;       // share of mass kept, summed over skipping queries
  double best = 0;       // the same by the K-1 past blocks of the largest mass
  double read = 0;       // share of past tokens read
  void merge(const MassKept& other);
  double share() const { return of_skipping(kept); }
  double share_best() const { return of_skipping(best); }
  double share_read() const { return of_skipping(read); }
  double share_left_out() const { return queries ? 1 - static_cast<double>(skipping) / static_cast<double>(queries) : 0; }

 private:
  double of_skipping(double sum) const { return skipping ? sum / static_cast<double>(skipping) : 1; }
};

// [setting][head] for q [T, H, D] and k [T, Hk, D] of a packed batch. Scores are computed for kRecallRows queries of a head at a time:
// memory grows with T, not with its square. Sums run in the order of queries, so they do not depend on threads.
inline constexpr int64_t kRecallRows = 64;
std::vector<std::vector<MassKept>> mass_kept(const Tensor& q, const Tensor& k, const PackedSequences& sequences,
                                             const std::vector<RecallSetting>& settings, kernels::Gate gate = kernels::Gate::mean);

}  // namespace moba
