#include "src/moba/statistics.h"

#include <algorithm>

#include "kernels/common/threads.h"

namespace moba {
namespace {

double ratio(int64_t numerator, int64_t denominator) {
  return denominator == 0 ? 0 : static_cast<double>(numerator) / static_cast<double>(denominator);
}

// One sequence of the batch: rows [begin, end) of `selected`, first query at key position `first`.
struct SequenceRange {
  int64_t begin, end, first, blocks;
};

SequenceRange sequence_range(const PackedSequences& sequences, int64_t index, int64_t chunk_size) {
  const auto* q = sequences.cu_seqlens_q.data<int32_t>();
  const auto* k = sequences.cu_seqlens_k.data<int32_t>();
  const int64_t length_k = k[index + 1] - k[index];
  return {q[index], q[index + 1], length_k - (q[index + 1] - q[index]), (length_k + chunk_size - 1) / chunk_size};
}

// Calls f(query position, block) for every entry of a head's rows.
template <class F>
void for_entries(const Tensor& selected, int64_t head, const SequenceRange& range, F&& f) {
  const int64_t heads = selected.size(1), slots = selected.size(2);
  const int32_t* rows = selected.data<int32_t>();
  for (int64_t t = range.begin; t < range.end; ++t)
    for (int64_t s = 0; s < slots; ++s) {
      const int64_t block = rows[(t * heads + head) * slots + s];
      if (block >= 0) f(range.first + t - range.begin, block);
    }
}

void check_arguments(const Tensor& selected, const PackedSequences& sequences, int64_t chunk_size) {
  MOBA_CHECK(chunk_size >= 1, "routing statistics: chunk_size must be >= 1, got {}", chunk_size);
  const int64_t tokens = sequences.cu_seqlens_q.data<int32_t>()[sequences.batch()];
  MOBA_CHECK(selected.dim() == 3 && selected.dtype() == DType::i32 && selected.size(0) == tokens,
             "routing statistics: selected must be i32 [{}, heads, slots], got {}", tokens, to_string(selected.shape()));
}

}  // namespace

double HeadRouting::own_share() const { return ratio(own_entries, own_entries + history_entries); }
double HeadRouting::mean_distance_blocks() const { return ratio(distance_blocks, history_entries); }
double HeadRouting::mean_distance_tokens() const { return ratio(distance_half_tokens, history_entries) / 2; }

void HeadRouting::merge(const HeadRouting& other) {
  queries += other.queries;
  own_entries += other.own_entries;
  history_entries += other.history_entries;
  distance_blocks += other.distance_blocks;
  distance_half_tokens += other.distance_half_tokens;
  chosen.resize(std::max(chosen.size(), other.chosen.size()));
  for (size_t j = 0; j < other.chosen.size(); ++j) chosen[j] += other.chosen[j];
}

void RoutingStatistics::add(int64_t layer, const Tensor& selected_any, const PackedSequences& sequences, int64_t chunk_size) {
  const Tensor selected = selected_any.to(Device{});
  check_arguments(selected, sequences, chunk_size);
  if (static_cast<size_t>(layer) >= layers_.size()) layers_.resize(static_cast<size_t>(layer) + 1);
  auto& heads = layers_[static_cast<size_t>(layer)];
  heads.resize(std::max<size_t>(heads.size(), static_cast<size_t>(selected.size(1))));
  parallel_items(selected.size(1), [&](int64_t head, int) {
    HeadRouting& sums = heads[static_cast<size_t>(head)];
    for (int64_t b = 0; b < sequences.batch(); ++b) {
      const SequenceRange range = sequence_range(sequences, b, chunk_size);
      sums.queries += range.end - range.begin;
      sums.chosen.resize(std::max<size_t>(sums.chosen.size(), static_cast<size_t>(range.blocks)));
      for_entries(selected, head, range, [&](int64_t position, int64_t block) {
        const int64_t own = position / chunk_size;
        if (block == own) {
          ++sums.own_entries;
          return;
        }
        ++sums.history_entries;
        sums.distance_blocks += own - block;
        sums.distance_half_tokens += 2 * (position - block * chunk_size) - (chunk_size - 1);
        ++sums.chosen[static_cast<size_t>(block)];
      });
    }
  });
}

void RoutingStatistics::merge(const RoutingStatistics& other) {
  layers_.resize(std::max(layers_.size(), other.layers_.size()));
  for (size_t layer = 0; layer < other.layers_.size(); ++layer) {
    auto& heads = layers_[layer];
    heads.resize(std::max(heads.size(), other.layers_[layer].size()));
    for (size_t head = 0; head < other.layers_[layer].size(); ++head) heads[head].merge(other.layers_[layer][head]);
  }
}

// Row: layers; of each layer its heads; of each head the five sums, the number of blocks and how often each was chosen.
std::vector<int64_t> RoutingStatistics::packed() const {
  std::vector<int64_t> row = {layers()};
  for (const auto& heads : layers_) {
    row.push_back(static_cast<int64_t>(heads.size()));
    for (const HeadRouting& h : heads) {
      row.insert(row.end(), {h.queries, h.own_entries, h.history_entries, h.distance_blocks, h.distance_half_tokens});
      row.push_back(static_cast<int64_t>(h.chosen.size()));
      row.insert(row.end(), h.chosen.begin(), h.chosen.end());
    }
  }
  return row;
}

RoutingStatistics RoutingStatistics::unpacked(const std::vector<int64_t>& row) {
  auto at = row.begin();
  const auto take = [&] {
    MOBA_ASSERT(at != row.end());
    return *at++;
  };
  RoutingStatistics out;
  out.layers_.resize(static_cast<size_t>(take()));
  for (auto& heads : out.layers_) {
    heads.resize(static_cast<size_t>(take()));
    for (HeadRouting& h : heads) {
      for (int64_t* sum : {&h.queries, &h.own_entries, &h.history_entries, &h.distance_blocks, &h.distance_half_tokens}) *sum = take();
      h.chosen.resize(static_cast<size_t>(take()));
      for (int64_t& chosen : h.chosen) chosen = take();
    }
  }
  return out;
}

HeadRouting RoutingStatistics::layer_total(int64_t layer) const {
  HeadRouting sum;
  for (const HeadRouting& head : heads(layer)) sum.merge(head);
  return sum;
}

HeadRouting RoutingStatistics::total() const {
  HeadRouting sum;
  for (int64_t layer = 0; layer < layers(); ++layer) sum.merge(layer_total(layer));
  return sum;
}

BlockUse block_use(const Tensor& selected_any, const PackedSequences& sequences, int64_t chunk_size, int64_t sequence) {
  const Tensor selected = selected_any.to(Device{});
  check_arguments(selected, sequences, chunk_size);
  MOBA_CHECK(sequence >= 0 && sequence < sequences.batch(), "block_use: sequence {} is not in 0 .. {}", sequence, sequences.batch() - 1);
  const SequenceRange range = sequence_range(sequences, sequence, chunk_size);
  BlockUse use{selected.size(1), range.blocks, {}};
  use.share.assign(static_cast<size_t>(use.heads * use.blocks * use.blocks), 0);
  std::vector<int64_t> queries(static_cast<size_t>(use.blocks));
  for (int64_t p = range.first; p < range.first + range.end - range.begin; ++p) ++queries[static_cast<size_t>(p / chunk_size)];
  for (int64_t head = 0; head < use.heads; ++head)
    for_entries(selected, head, range, [&](int64_t position, int64_t block) {
      const int64_t i = position / chunk_size;
      use.share[static_cast<size_t>((head * use.blocks + i) * use.blocks + block)] +=
          1.0f / static_cast<float>(queries[static_cast<size_t>(i)]);
    });
  return use;
}

}  // namespace moba
