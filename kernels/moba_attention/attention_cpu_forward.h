// Forward of one chunk: online softmax over key panels in ascending order.
//
// Per panel and row: m' = max(m, panel max), l' = l * 2^(m-m') + sum of P, O' = O * 2^(m-m') + P V, all in fp32, scores in units
// of log2. O rows lie in the chunk's own buffer; products add to them in place. A masked key gets P = 0, which leaves sums
// unchanged bit for bit as long as V is finite; panels that hold NaN or Inf take exact_row for rows with limits.
#pragma once
#include "kernels/moba_attention/attention_cpu_chunk.h"

namespace moba::kernels::attention_cpu {

constexpr float kEmptyMax = -1e30f;  // finite: a row without keys yet keeps factor 2^0 = 1
constexpr float kNone = -__builtin_inff();

template <class G, class E>
class ForwardChunk {
  using V = typename G::V;
  using F = typename V::F;

 public:
  ForwardChunk(const ChunkJob& job, void* scratch) : job_(job), depth_(Depth<G>::of(job.head_dim)) {
    rows_ = (job.q_end - job.q_begin) * job.group;
    Arena arena(scratch);
    take(arena, {rows_, job.head_dim, blocks(), job.slots, false});
  }

  static int64_t scratch_bytes(const ScratchLimits& limits) {
    ForwardChunk sized(limits.head_dim);
    Arena arena(nullptr);
    sized.take(arena, limits);
    return arena.used();
  }

  void run() {
    build_lists(job_, rows_, lists_);
    for (int64_t i = 0; i < rows_ * depth_.padded; i += V::kLanes) V::store(sums_ + i, V::zero());
    for (int64_t r = 0; r < rows_; ++r) max_[r] = kEmptyMax, total_[r] = 0;
    visit_tiles(
        job_, lists_, [this](const Tile& t, const Tile* next) { tile(t, next); }, [](int64_t) {});
    finish();
  }

 private:
  explicit ForwardChunk(int64_t head_dim) : depth_(Depth<G>::of(head_dim)) {}

  int64_t blocks() const { return job_.type == AttentionType::moba ? (job_.packed.keys - 1) / job_.chunk_size + 1 : 0; }

  void take(Arena& arena, const ScratchLimits& limits) {
    lists_ = RowLists::take(arena, limits);
    sums_ = arena.take<float>(limits.rows * depth_.padded);
    max_ = arena.take<float>(limits.rows);
    total_ = arena.take<float>(limits.rows);
    queries_ = arena.take<float>(kTileRows * depth_.words);
    scores_ = arena.take<float>(kTileRows * kScoreStride);
  }

  void tile(const Tile& t, const Tile* next) {
    const auto& [s, rows, count] = t;
    const E* q = static_cast<const E*>(job_.q);
    prefetch(t, next);
    for (int i = 0; i < count; ++i)
      gather_row<G>(q + row_offset(job_, rows[i]), depth_, query_factor<G>(job_), queries_ + i * depth_.words);
    multiply_columns<G>(job_, s, rows, count, queries_, depth_.words, job_.packed.k_columns, depth_.words, scores_, ahead_);
    float factor[kTileRows] = {};
    softmax(s, rows, count, factor);
    const bool cut_pairs = G::kPair == 2 && ((s.begin | s.end) & 1);
    if (job_.packed.nonfinite[s.panel] && (s.limited || cut_pairs)) {
      for (int i = 0; i < count; ++i) exact_row(s, rows[i], scores_ + i * kScoreStride, factor[i]);
    } else {
      multiply_rows<G, Start::scale>(job_, s, rows, count, scores_, values(s), depth_.padded, sums_, factor, ahead_);
    }
  }

  // Output rows of this tile, queries of the next one.
  void prefetch(const Tile& t, const Tile* next) {
    ahead_.clear();
    for (int i = 0; i < t.count; ++i) ahead_.add(sums_ + t.rows[i] * depth_.padded, depth_.padded * int64_t{sizeof(float)});
    if (!next) return;
    for (int i = 0; i < next->count; ++i)
      ahead_.add(static_cast<const E*>(job_.q) + row_offset(job_, next->rows[i]), depth_.d * int64_t{sizeof(E)});
  }

  // Scores of the tile become P (in place; bf16 pairs where words are pairs); factor: of each row's earlier sums.
  void softmax(const Stretch& s, const int32_t* rows, int count, float* factor) {
    for (int i = 0; i < count; ++i) {  // all maxima first: a row's exponentials need not wait for its reduction then
      const RowSpan span = row_span<G>(job_, s, rows[i]);
      const float largest = largest_score(span, scores_ + i * kScoreStride), old_max = max_[rows[i]];
      max_[rows[i]] = largest > old_max ? largest : old_max;
      factor[i] = old_max - max_[rows[i]];
    }
    for (int i = 0; i < count; i += V::kLanes) V::store(factor + i, V::exp2(V::load(factor + i)));
    for (int i = 0; i < count; ++i) {
      const RowSpan span = row_span<G>(job_, s, rows[i]);
      float* scores = scores_ + i * kScoreStride;
      float& total = total_[rows[i]];
      total = total * factor[i] + exponentials(span, max_[rows[i]], scores);
      clear_outside<G>(span, scores);
    }
  }

  float largest_score(const RowSpan& span, const float* scores) const {
    F best[2] = {V::splat(kNone), V::splat(kNone)};
    for_units<G>(
        span, [&](int64_t k, auto masked) __attribute__((always_inline)) {
          MOBA_UNROLL
          for (int j = 0; j < 2; ++j) best[j] = V::max(score<decltype(masked)::value>(span, scores, k + j * V::kLanes), best[j]);
        });
    return V::reduce_max(V::max(best[0], best[1])) * score_factor<G>(job_);
  }

  // Returns the sum of the row's P.
  float exponentials(const RowSpan& span, float shift, float* scores) const {
    const float unit = score_factor<G>(job_);
    F total[2] = {V::zero(), V::zero()};
    for_units<G>(
        span, [&](int64_t first, auto masked) __attribute__((always_inline)) {
          MOBA_UNROLL
          for (int j = 0; j < 2; ++j) {
            const int64_t k = first + j * V::kLanes;
            F p = probability<G>(score<decltype(masked)::value>(span, scores, k), unit, shift);
            if constexpr (decltype(masked)::value) p = (F)((typename V::I)p & readable<V>(k, span.keys.begin, span.keys.end));
            total[j] = total[j] + p;
            store_weights<G>(scores, k, p);
          }
        });
    return V::sum(total[0] + total[1]);
  }

  template <bool Masked>
  static F score(const RowSpan& span, const float* scores, int64_t k) {
    const F x = V::load(scores + k);
    return Masked ? V::select(readable<V>(k, span.keys.begin, span.keys.end), x, V::splat(kNone)) : x;
  }

  const float* values(const Stretch& s) const { return job_.packed.v_rows + s.panel * kPanelKeys / G::kPair * depth_.padded; }

  // O = O * factor + P V for one row, touching only the keys it may read.
  void exact_row(const Stretch& s, int64_t row, const float* p, float factor) {
    const int64_t origin = s.panel * kPanelKeys;
    const KeyRange keys = stretch_limits(job_, s, row);
    float* o = sums_ + row * depth_.padded;
    for (int64_t d = 0; d < depth_.padded; d += V::kLanes) V::store(o + d, V::load(o + d) * V::splat(factor));
    exact_product<G>(p, keys.begin - origin, keys.end - origin, values(s),
                     padded_panel_keys<G>(job_.packed.keys, s.panel) / G::kPair * G::kColumns, depth_.padded, o);
  }

  void finish() {
    E* out = static_cast<E*>(job_.out);
    for (int64_t r = 0; r < rows_; ++r) {
      const F inverse = V::splat(1.0f / total_[r]);
      const float* o = sums_ + r * depth_.padded;
      E* to = out + row_offset(job_, r);
      int64_t d = 0;
      for (; d + V::kLanes <= depth_.d; d += V::kLanes) V::store(to + d, V::load(o + d) * inverse);
      if (d < depth_.d) V::store_partial(to + d, V::load(o + d) * inverse, static_cast<int>(depth_.d - d));
      job_.lse[lse_offset(job_, r)] = (max_[r] + __builtin_log2f(total_[r])) * (1.0f / kLog2E);
    }
  }

  ChunkJob job_;
  Depth<G> depth_;
  int64_t rows_ = 0;
  Prefetch ahead_;
  RowLists lists_;
  float* sums_ = nullptr;     // [rows][Dp] O before division
  float* max_ = nullptr;      // [rows] m
  float* total_ = nullptr;    // [rows] l
  float* queries_ = nullptr;  // [kTileRows][depth words]
  float* scores_ = nullptr;   // [kTileRows][kScoreStride] scores, then P
};

}  // namespace moba::kernels::attention_cpu
