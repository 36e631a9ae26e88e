// Backward of one chunk: P is recomputed from lse, five products per tile.
//
//   S = Q K^T, dP = dO V^T, P = exp(scale*S - lse), dS = P * (dP - delta)
//   dV += P^T dO, dK += dS^T Q (fp32 sums of the whole sequence, panel by panel in the order of chunks), dQ += dS K (the chunk's own)
//
// Chunks of a sequence form a chain: a chunk may add to a panel once the chunk before it in the chain has finished that panel.
// The chain is fixed by the shape, so dK and dV have the same bits for any number of threads.
#pragma once
#include <sched.h>

#include "kernels/moba_attention/attention_cpu_chunk.h"

namespace moba::kernels::attention_cpu {

// a * b + c rounded as the vectors of this instruction set round it. Spelled out: vectorised in-order sums would split it.
MOBA_INLINE float fused(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

template <class G, class E>
class BackwardChunk {
  using V = typename G::V;
  using F = typename V::F;

 public:
  BackwardChunk(const ChunkJob& job, void* scratch) : job_(job), depth_(Depth<G>::of(job.head_dim)) {
    rows_ = (job.q_end - job.q_begin) * job.group;
    const int64_t blocks = job.type == AttentionType::moba ? (job.packed.keys - 1) / job.chunk_size + 1 : 0;
    Arena arena(scratch);
    take(arena, {rows_, job.head_dim, blocks, job.slots, true});
  }

  static int64_t scratch_bytes(const ScratchLimits& limits) {
    BackwardChunk sized(limits.head_dim);
    Arena arena(nullptr);
    sized.take(arena, limits);
    return arena.used();
  }

  void run() {
    build_lists(job_, rows_, lists_);
    for (int64_t i = 0; i < rows_ * depth_.padded; i += V::kLanes) V::store(dq_ + i, V::zero());
    start_rows();
    visit_tiles(
        job_, lists_,
        [this](const Tile& t, const Tile* next) {
          wait_for(t.keys.panel);
          safe_tile(t, next);
        },
        [this](int64_t panel) {
          wait_for(panel);
          publish(panel + 1);
        });
    publish(INT64_MAX);
    finish();
  }

 private:
  explicit BackwardChunk(int64_t head_dim) : depth_(Depth<G>::of(head_dim)) {}

  int64_t row_stride() const { return depth_.padded + 16; }  // words; padded with zeros to whole register tiles

  void take(Arena& arena, const ScratchLimits& limits) {
    lists_ = RowLists::take(arena, limits);
    dq_ = arena.take<float>(limits.rows * depth_.padded);
    lse_ = arena.take<float>(limits.rows);
    delta_ = arena.take<float>(limits.rows);
    queries_ = arena.take<float>(kTileRows * row_stride());
    douts_ = arena.take<float>(kTileRows * row_stride());
    p_ = arena.take<float>(kTileRows * kScoreStride);
    ds_ = arena.take<float>(kTileRows * kScoreStride);
    if constexpr (G::kPair == 2) {
      query_pairs_ = arena.take<float>(kTileRows / 2 * row_stride());
      dout_pairs_ = arena.take<float>(kTileRows / 2 * row_stride());
      p_pairs_ = arena.take<float>(kTileRows / 2 * kScoreStride);
      ds_pairs_ = arena.take<float>(kTileRows / 2 * kScoreStride);
    }
  }

  // ---- the chain of chunks
  void wait_for(int64_t panel) {
    if (!job_.progress_before) return;
    for (int spins = 0; __atomic_load_n(job_.progress_before, __ATOMIC_ACQUIRE) <= panel; ++spins) {
      if (spins < 1000)
        __builtin_ia32_pause();
      else
        sched_yield();
    }
  }
  void publish(int64_t panels) { __atomic_store_n(job_.progress, panels, __ATOMIC_RELEASE); }

  // lse in log2 units, delta = dO . O, and whether q or dO hold NaN or Inf anywhere. delta is summed in the order of the products:
  // where one key takes all of a row's weight, O = V bit for bit and dP - delta cancels to 0.
  void start_rows() {
    constexpr int kChains = 4;  // rows summed side by side, so that a sum's latency passes beside the others
    F poisoned = V::zero();
    for (int64_t first = 0; first < rows_; first += kChains) {
      const E *o[kChains], *g[kChains];
      float sum[kChains] = {};
      for (int i = 0; i < kChains; ++i) {
        const int64_t at = row_offset(job_, smaller(first + i, rows_ - 1));
        o[i] = static_cast<const E*>(job_.out) + at;
        g[i] = static_cast<const E*>(job_.dout) + at;
        poisoned = poisoned + poison<V>(static_cast<const E*>(job_.q) + at, depth_.d) + poison<V>(g[i], depth_.d);
      }
      for (int64_t d = 0; d < depth_.d; ++d) {
        MOBA_UNROLL
        for (int i = 0; i < kChains; ++i) sum[i] = fused(to_float(g[i][d]), to_float(o[i][d]), sum[i]);
      }
      for (int i = 0; i < smaller(kChains, rows_ - first); ++i) {
        delta_[first + i] = sum[i];
        lse_[first + i] = job_.lse[lse_offset(job_, first + i)] * kLog2E;
      }
    }
    nonfinite_ = V::sum(poisoned) != 0;
  }

  // Sums of this tile, rows of the next one.
  void prefetch(const Tile& t, const Tile* next) {
    ahead_.clear();
    for (int i = 0; i < t.count; ++i) ahead_.add(dq_ + t.rows[i] * depth_.padded, depth_.padded * int64_t{sizeof(float)});
    if (!next) return;
    for (int i = 0; i < next->count; ++i) {
      const int64_t at = row_offset(job_, next->rows[i]), bytes = depth_.d * int64_t{sizeof(E)};
      ahead_.add(static_cast<const E*>(job_.q) + at, bytes);
      ahead_.add(static_cast<const E*>(job_.dout) + at, bytes);
    }
  }

  // NaN or Inf must not meet the zero weight of a masked pair: then rows go one by one, each over exactly its keys.
  void safe_tile(const Tile& t, const Tile* next) {
    const auto& [s, rows, count] = t;
    prefetch(t, next);
    const bool cut_pairs = G::kPair == 2 && ((s.begin | s.end) & 1);
    if ((nonfinite_ || job_.packed.nonfinite[s.panel]) && (s.limited || cut_pairs)) {
      for (int i = 0; i < count; ++i) tile(s, rows + i, 1, true);
    } else {
      tile(s, rows, count, false);
    }
  }

  void tile(const Stretch& s, const int32_t* rows, int count, bool exact) {
    gather(job_.q, query_factor<G>(job_), rows, count, queries_, query_pairs_);
    gather(job_.dout, 1.0f, rows, count, douts_, dout_pairs_);
    multiply_columns<G>(job_, s, rows, count, queries_, row_stride(), job_.packed.k_columns, depth_.words, p_, ahead_);
    multiply_columns<G>(job_, s, rows, count, douts_, row_stride(), job_.packed.v_columns, depth_.words, ds_, ahead_);
    for (int i = 0; i < count; ++i) weights_row(s, rows[i], p_ + i * kScoreStride, ds_ + i * kScoreStride);
    if constexpr (G::kPair == 2) {
      const int64_t origin = s.panel * kPanelKeys;
      const int64_t from = (s.begin - origin) / G::kColumns * G::kColumns, to = round_up(s.end - origin, G::kColumns);
      interleave(p_, kScoreStride, from, to, count, p_pairs_);
      interleave(ds_, kScoreStride, from, to, count, ds_pairs_);
      add_key_rows(s, rows, count, p_pairs_, dout_pairs_, job_.dv);
      add_key_rows(s, rows, count, ds_pairs_, query_pairs_, job_.dk);
    } else {
      add_key_rows(s, rows, count, p_, douts_, job_.dv);
      add_key_rows(s, rows, count, ds_, queries_, job_.dk);
    }
    const float* k_rows = job_.packed.k_rows + s.panel * kPanelKeys / G::kPair * depth_.padded;
    if (exact) {
      const int64_t origin = s.panel * kPanelKeys;
      const KeyRange keys = stretch_limits(job_, s, rows[0]);
      exact_product<G>(ds_, keys.begin - origin, keys.end - origin, k_rows,
                       padded_panel_keys<G>(job_.packed.keys, s.panel) / G::kPair * G::kColumns, depth_.padded,
                       dq_ + rows[0] * depth_.padded);
    } else {
      multiply_rows<G, Start::load>(job_, s, rows, count, ds_, k_rows, depth_.padded, dq_, nullptr, ahead_);
    }
  }

  // Rows of the tile as words along D; with pairs also as pairs of rows for the products that sum over rows.
  void gather(const void* from, float factor, const int32_t* rows, int count, float* words, float* pairs) {
    for (int i = 0; i < count; ++i) {
      float* to = words + i * row_stride();
      for (int64_t w = depth_.words / V::kLanes * V::kLanes; w < row_stride(); w += V::kLanes) V::store(to + w, V::zero());
      gather_row<G>(static_cast<const E*>(from) + row_offset(job_, rows[i]), depth_, factor, to);
    }
    if constexpr (G::kPair == 2) interleave(words, row_stride(), 0, depth_.padded, count, pairs);
  }

  // bf16 rows -> words (row 2i, row 2i+1) for columns [from, to); a missing last row counts as zero. Strides in words.
  static void interleave(const float* rows, int64_t stride, int64_t from, int64_t to, int count, float* pairs) {
    const bf16 zeros[V::kLanes] = {};
    for (int i = 0; i < count; i += 2, pairs += stride) {
      const bf16* lo = reinterpret_cast<const bf16*>(rows + i * stride);
      const bf16* hi = reinterpret_cast<const bf16*>(rows + (i + 1) * stride);
      for (int64_t c = from; c < to; c += V::kLanes) V::store(pairs + c, pair_rows<V>(lo + c, i + 1 < count ? hi + c : zeros));
    }
  }

  // scores -> P and dP -> dS of one row, zero where it may not read; bf16 where words are pairs.
  void weights_row(const Stretch& s, int64_t row, float* scores, float* dp) {
    const RowSpan span = row_span<G>(job_, s, row);
    const float unit = score_factor<G>(job_), lse = lse_[row];
    const F delta = V::splat(delta_[row]);
    for_units<G>(
        span, [&](int64_t first, auto masked) __attribute__((always_inline)) {
          MOBA_UNROLL
          for (int j = 0; j < 2; ++j) {
            const int64_t k = first + j * V::kLanes;
            F p = probability<G>(V::load(scores + k), unit, lse);
            F ds = p * (V::load(dp + k) - delta);
            if constexpr (decltype(masked)::value) {
              const typename V::I mask = readable<V>(k, span.keys.begin, span.keys.end);
              p = (F)((typename V::I)p & mask);
              ds = (F)((typename V::I)ds & mask);
            }
            store_weights<G>(scores, k, p);
            store_weights<G>(dp, k, ds);
          }
        });
    clear_outside<G>(span, scores);
    clear_outside<G>(span, dp);
  }

  // sums[key] += over rows of the tile weights[row][key] * values[row]; keys are the rows of the register tile here.
  void add_key_rows(const Stretch& s, const int32_t* rows, int count, const float* weights, const float* values, float* sums) {
    const int64_t origin = s.panel * kPanelKeys;
    const KeyRange first_row = stretch_limits(job_, s, rows[0]), last_row = stretch_limits(job_, s, rows[count - 1]);
    const int words = (count + G::kPair - 1) / G::kPair;
    int skip = 0;  // words of rows that end before the key group
    for_row_groups(static_cast<int>(last_row.end - first_row.begin), [&](int first, int n) {
      const int64_t key = first_row.begin + first;
      if (s.limited) {
        while (skip < words - 1 && stretch_limits(job_, s, rows[smaller((skip + 1) * G::kPair, count) - 1]).end <= key) ++skip;
      }
      for (int64_t d = 0; d < depth_.padded; d += G::kColumns) {
        float* c[kMaxRows];
        for (int r = 0; r < n; ++r) {
          c[r] = sums + (key + r) * depth_.padded + d;
          __builtin_prefetch(c[r] + kMaxRows * depth_.padded, 1, 3);  // of the next keys
        }
        row_group<G, Start::load>(n, weights + skip * kScoreStride + key - origin, 1, kScoreStride, values + skip * row_stride() + d,
                                  row_stride(), words - skip, c);
      }
    });
  }

  void finish() {
    E* dq = static_cast<E*>(job_.dq);
    const F scale = V::splat(job_.scale);
    for (int64_t r = 0; r < rows_; ++r) {
      const float* from = dq_ + r * depth_.padded;
      E* to = dq + row_offset(job_, r);
      int64_t d = 0;
      for (; d + V::kLanes <= depth_.d; d += V::kLanes) V::store(to + d, V::load(from + d) * scale);
      if (d < depth_.d) V::store_partial(to + d, V::load(from + d) * scale, static_cast<int>(depth_.d - d));
    }
  }

  ChunkJob job_;
  Depth<G> depth_;
  int64_t rows_ = 0;
  bool nonfinite_ = false;
  Prefetch ahead_;
  RowLists lists_;
  float* dq_ = nullptr;       // [rows][Dp]
  float* lse_ = nullptr;      // [rows] log2 units
  float* delta_ = nullptr;    // [rows]
  float* queries_ = nullptr;  // [kTileRows][row_stride] words along D; so is douts_
  float* douts_ = nullptr;
  float* p_ = nullptr;            // [kTileRows][kScoreStride] scores, then P
  float* ds_ = nullptr;           // dP, then dS
  float* query_pairs_ = nullptr;  // [kTileRows / 2][...] the same as pairs of rows
  float* dout_pairs_ = nullptr;
  float* p_pairs_ = nullptr;
  float* ds_pairs_ = nullptr;
};

}  // namespace moba::kernels::attention_cpu
