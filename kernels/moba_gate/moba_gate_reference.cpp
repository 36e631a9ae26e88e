// The gate by plain loops: every score of one query at a time, fp64 sums, a full sort. Centroids are means in fp64 rounded
// to fp32 once; scores are rounded to fp32 before they are compared, as the definition says.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/moba_gate/moba_gate_rules.h"

namespace moba::kernels {
namespace {

constexpr int64_t kQueriesPerItem = 64;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// What the scores of one sequence are computed from, each [history, Hk, D].
struct BlockSummary {
  std::vector<float> mean, smallest, largest;
};

// A NaN among the keys makes both bounds NaN, so that the block is no candidate.
template <class T>
void summarise_channel(const T* keys, int64_t stride, int64_t count, float& mean, float& smallest, float& largest) {
  double sum = 0, low = kInfinity, high = -kInfinity;
  bool any_nan = false;
  for (int64_t t = 0; t < count; ++t) {
    const double x = widen(keys[t * stride]);
    sum += x;
    low = std::min(low, x);
    high = std::max(high, x);
    any_nan = any_nan || std::isnan(x);
  }
  mean = static_cast<float>(sum / static_cast<double>(count));
  smallest = static_cast<float>(any_nan ? kNaN : low);
  largest = static_cast<float>(any_nan ? kNaN : high);
}

template <class T>
BlockSummary summarise(const MobaGateArgs& args, const GateSequence& sequence) {
  const int64_t width = args.shape.kv_heads * args.shape.head_dim;
  const auto size = static_cast<size_t>(sequence.history * width);
  BlockSummary summary{std::vector<float>(size), std::vector<float>(size), std::vector<float>(size)};
  parallel_items(sequence.history, [&](int64_t block, int) {
    const T* keys = static_cast<const T*>(args.k) + (sequence.k_begin + block * args.chunk_size) * width;
    for (int64_t c = 0; c < width; ++c) {
      const auto at = static_cast<size_t>(block * width + c);
      summarise_channel(keys + c, width, args.chunk_size, summary.mean[at], summary.smallest[at], summary.largest[at]);
    }
  });
  return summary;
}

// <q, mean>, or Quest's bound on any <q, k> of the block.
template <class T>
double summary_score(const MobaGateArgs& args, const BlockSummary& summary, const T* q, int64_t kv_head, int64_t block) {
  const int64_t D = args.shape.head_dim;
  const auto at = static_cast<size_t>((block * args.shape.kv_heads + kv_head) * D);
  double score = 0;
  for (int64_t d = 0; d < D; ++d) {
    const double x = widen(q[d]);
    if (args.gate == Gate::mean) {
      score += x * summary.mean[at + static_cast<size_t>(d)];
    } else {
      const double low = x * summary.smallest[at + static_cast<size_t>(d)], high = x * summary.largest[at + static_cast<size_t>(d)];
      score += low > high ? low : high;
    }
  }
  return score;
}

// Log of the attention mass of keys [begin, end) for one query head, unnormalised.
template <class T>
double log_mass(const MobaGateArgs& args, const GateSequence& sequence, const T* q, int64_t kv_head, int64_t begin, int64_t end) {
  const int64_t D = args.shape.head_dim, stride = args.shape.kv_heads * D;
  const T* keys = static_cast<const T*>(args.k) + sequence.k_begin * stride + kv_head * D;
  double largest = -kInfinity, mass = 0;
  for (int64_t t = begin; t < end; ++t) {
    double score = 0;
    for (int64_t d = 0; d < D; ++d) score += widen(q[d]) * widen(keys[t * stride + d]);
    score *= args.softmax_scale;
    if (std::isnan(score)) return kNaN;
    if (score == -kInfinity) continue;
    if (score > largest)
      mass = mass * std::exp(largest - score) + 1, largest = score;
    else
      mass += std::exp(score - largest);
  }
  return mass == 0 ? -kInfinity : largest + std::log(mass);
}

// Adds this head's share of attention per history block to `scores`; with a single head per row the logarithm of the mass
// has the same order and never underflows.
template <class T>
void add_true_mass(const MobaGateArgs& args, const GateSequence& sequence, const T* q, int64_t kv_head, int64_t p,
                   std::vector<double>& scores) {
  const int64_t own = p / args.chunk_size, S = args.chunk_size;
  std::vector<double> mass(static_cast<size_t>(own + 1));
  for (int64_t b = 0; b <= own; ++b)
    mass[static_cast<size_t>(b)] = log_mass(args, sequence, q, kv_head, b * S, std::min((b + 1) * S, p + 1));
  if (heads_per_row(args) == 1) {
    std::copy_n(mass.begin(), own, scores.begin());
    return;
  }
  double largest = -kInfinity, total = 0;
  for (const double m : mass) largest = m > largest ? m : largest;
  for (const double m : mass) total += std::isnan(m) ? 0 : std::exp(m - largest);
  for (int64_t b = 0; b < own; ++b) scores[static_cast<size_t>(b)] += std::exp(mass[static_cast<size_t>(b)] - largest) / total;
}

// Own block, then the K-1 candidates of highest score; ties: larger block first; NaN: no candidate.
void select_highest(const std::vector<double>& scores, int64_t own, int64_t slots, int32_t* row) {
  std::vector<int32_t> candidates;
  for (int64_t b = 0; b < own; ++b)
    if (!std::isnan(scores[static_cast<size_t>(b)])) candidates.push_back(static_cast<int32_t>(b));
  std::sort(candidates.begin(), candidates.end(), [&](int32_t a, int32_t b) {
    const double score_a = scores[static_cast<size_t>(a)], score_b = scores[static_cast<size_t>(b)];
    return score_a != score_b ? score_a > score_b : a > b;
  });
  row[0] = static_cast<int32_t>(own);
  for (int64_t j = 1; j < slots; ++j) row[j] = j <= std::ssize(candidates) ? candidates[static_cast<size_t>(j - 1)] : -1;
}

template <class T>
void select_row(const MobaGateArgs& args, const GateSequence& sequence, const BlockSummary& summary, int64_t i, int64_t row_index) {
  const AttentionShape& shape = args.shape;
  const int64_t p = sequence.offset() + i, own = p / args.chunk_size, token = sequence.q_begin + i;
  int32_t* row = args.selected + (token * gate_rows(args) + row_index) * args.slots;
  if (!gate_has_scores(args.gate)) return select_unscored(args, p, row_index, row);

  std::vector<double> scores(static_cast<size_t>(own), 0.0);
  for (int64_t g = 0; g < heads_per_row(args); ++g) {
    const int64_t head = row_index * heads_per_row(args) + g, kv_head = head / queries_per_kv_head(args);
    const T* q = static_cast<const T*>(args.q) + (token * shape.heads + head) * shape.head_dim;
    if (args.gate == Gate::oracle)
      add_true_mass(args, sequence, q, kv_head, p, scores);
    else
      for (int64_t b = 0; b < own; ++b) scores[static_cast<size_t>(b)] += summary_score(args, summary, q, kv_head, b);
  }
  if (args.gate != Gate::oracle)
    for (double& score : scores) score = static_cast<float>(score);
  select_highest(scores, own, args.slots, row);
}

// Centroids kept by the caller, rows of the earlier sequences first.
BlockSummary kept_summary(const MobaGateArgs& args, const GateSequence& sequence, int64_t first_row) {
  const int64_t width = args.shape.kv_heads * args.shape.head_dim;
  const float* begin = args.centroids + first_row * width;
  return {std::vector<float>(begin, begin + sequence.history * width), {}, {}};
}

template <class T>
void gate_all(const MobaGateArgs& args) {
  const bool kept = args.gate == Gate::mean && args.centroids != nullptr;
  int64_t first_row = 0;
  for (int64_t s = 0; s < args.shape.batch; ++s) {
    const GateSequence sequence = gate_sequence(args, s);
    const bool summarised = args.gate == Gate::mean || args.gate == Gate::minmax;
    BlockSummary summary;
    if (kept)
      summary = kept_summary(args, sequence, first_row);
    else if (summarised && sequence.q_len > 0)
      summary = summarise<T>(args, sequence);
    first_row += sequence.history;
    const int64_t chunks = (sequence.q_len + kQueriesPerItem - 1) / kQueriesPerItem;
    parallel_items(chunks * gate_rows(args), [&](int64_t item, int) {
      const int64_t begin = item % chunks * kQueriesPerItem, end = std::min(sequence.q_len, begin + kQueriesPerItem);
      for (int64_t i = begin; i < end; ++i) select_row<T>(args, sequence, summary, i, item / chunks);
    });
  }
}

}  // namespace

void moba_gate_reference(const MobaGateArgs& args) {
  validate(args);
  visit_float("moba_gate", args.dtype, [&](auto type) { gate_all<decltype(type)>(args); });
}

void moba_centroids_reference(const MobaGateArgs& args, float* centroids) {
  validate(args.shape);
  visit_float("moba_centroids", args.dtype, [&](auto type) {
    for (int64_t s = 0; s < args.shape.batch; ++s) {
      const BlockSummary summary = summarise<decltype(type)>(args, gate_sequence(args, s));
      centroids = std::copy(summary.mean.begin(), summary.mean.end(), centroids);
    }
  });
}

}  // namespace moba::kernels
