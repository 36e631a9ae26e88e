// What forward and backward of a chunk share: its rows, their key limits, and the walk over (rows, keys of one panel).
#pragma once
#include <type_traits>

#include "kernels/moba_attention/attention_cpu_tiles.h"

namespace moba::kernels::attention_cpu {

// Keys [begin, end) of one panel, for rows in `list` (chunk rows, ascending). `limited`: a row may read only part of them.
struct Stretch {
  int64_t panel = 0, begin = 0, end = 0;
  const int32_t* list = nullptr;
  int64_t rows = 0;
  bool limited = false;
};

constexpr int kScoreStride = kPanelKeys + 16;  // words between rows of a tile's scores: not a power of two, for the L1 sets
constexpr float kLog2E = 1.44269504088896f;

struct KeyRange {
  int64_t begin, end;
};

// Key limits of row r of the chunk by causality and window; selected blocks narrow them further.
MOBA_INLINE KeyRange row_limits(const ChunkJob& job, int64_t row) {
  const int64_t p = job.position + row / job.group;
  return {job.type == AttentionType::window ? larger(0, p - job.window + 1) : 0, p + 1};
}

// Scratch memory handed out front to back; every piece starts on a cache line.
class Arena {
 public:
  [[gnu::always_inline]] explicit inline Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  [[gnu::always_inline]] inline T* take(int64_t count) {
    char* piece = base_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }
  [[gnu::always_inline]] inline int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// Row lists of a chunk: 0, 1, 2, ... and, for MoBA, the rows that chose each history block.
struct RowLists {
  int32_t* all = nullptr;      // [rows]
  int32_t* offsets = nullptr;  // [blocks + 1]
  int32_t* chosen = nullptr;   // [rows * (slots - 1)], ascending in each block

  MOBA_INLINE RowLists take(Arena& arena, const ScratchLimits& limits) {
    RowLists lists;
    lists.all = arena.take<int32_t>(limits.rows);
    lists.offsets = arena.take<int32_t>(limits.blocks + 2);
    lists.chosen = arena.take<int32_t>(limits.rows * larger(limits.slots - 1, 0));
    return lists;
  }
};

// Counting sort of the history slots by block; the selection was checked by the driver.
static void build_lists(const ChunkJob& job, int64_t rows, RowLists& lists) {
  for (int64_t r = 0; r < rows; ++r) lists.all[r] = static_cast<int32_t>(r);
  if (job.type != AttentionType::moba) return;
  const int64_t blocks = (job.position + (job.q_end - job.q_begin) - 1) / job.chunk_size + 1;
  int32_t* start = lists.offsets;
  for (int64_t b = 0; b < blocks + 2; ++b) start[b] = 0;
  auto row_slots = [&](int64_t r) { return job.selected + r / job.group * job.selected_stride + r % job.group * job.selected_head_stride; };
  // start[b + 2] counts block b, then start[b + 1] is where its rows go; filling moves it to the end, which is start of b + 1.
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* slots = row_slots(r);
    for (int64_t s = 1; s < job.slots; ++s)
      if (slots[s] >= 0) ++start[slots[s] + 2];
  }
  for (int64_t b = 2; b < blocks + 2; ++b) start[b] += start[b - 1];
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* slots = row_slots(r);
    for (int64_t s = 1; s < job.slots; ++s)
      if (slots[s] >= 0) lists.chosen[start[slots[s] + 1]++] = static_cast<int32_t>(r);
  }
}

// visit(Stretch) for rows [first, last) of the chunk against keys [begin, end) of a panel, split where limits start and stop to
// cut: limits ascend with the row, so those rows form the two ends.
template <class Visit>
static void visit_limited_rows(const ChunkJob& job, const RowLists& lists, int64_t panel, KeyRange keys, int64_t first, int64_t last,
                               Visit&& visit) {
  auto token_of = [&](int64_t position) { return (position - job.position) * job.group; };  // first row at that position
  auto clamp = [&](int64_t r) { return larger(first, smaller(last, r)); };
  const int64_t reading = clamp(token_of(keys.begin));       // first row that sees the first key
  const int64_t seeing_all = clamp(token_of(keys.end - 1));  // first row that sees the last key
  int64_t forgetting = last, blind = last;                   // first row that misses the first key, that misses all
  if (job.type == AttentionType::window) {
    forgetting = clamp(token_of(keys.begin + job.window));
    blind = clamp(token_of(keys.end - 1 + job.window));
  }
  auto give = [&](int64_t a, int64_t b, bool limited) {
    if (b > a) visit(Stretch{panel, keys.begin, keys.end, lists.all + a, b - a, limited});
  };
  if (forgetting < seeing_all) return give(reading, blind, true);  // window shorter than the stretch
  give(reading, seeing_all, true);
  give(seeing_all, forgetting, false);
  give(forgetting, blind, true);
}

// Every stretch of the chunk, keys ascending for every row; after(panel) once no later stretch reads or writes that panel.
template <class Visit, class After>
static void visit_stretches(const ChunkJob& job, const RowLists& lists, Visit&& visit, After&& after) {
  const int64_t rows = (job.q_end - job.q_begin) * job.group;
  const int64_t last_position = job.position + (job.q_end - job.q_begin) - 1;
  const int64_t first_key = job.type == AttentionType::window ? larger(0, job.position - job.window + 1) : 0;
  for (int64_t panel = first_key / kPanelKeys; panel * kPanelKeys <= last_position; ++panel) {
    const KeyRange keys{panel * kPanelKeys, smaller((panel + 1) * kPanelKeys, last_position + 1)};
    if (job.type != AttentionType::moba) {
      visit_limited_rows(job, lists, panel, keys, 0, rows, visit);
    } else {
      for (int64_t block = keys.begin / job.chunk_size; block * job.chunk_size < keys.end; ++block) {
        const int64_t begin = larger(keys.begin, block * job.chunk_size), end = smaller(keys.end, (block + 1) * job.chunk_size);
        const int64_t own_first = larger(0, block * job.chunk_size - job.position) * job.group;
        const int64_t own_last = smaller(job.q_end - job.q_begin, larger(0, (block + 1) * job.chunk_size - job.position)) * job.group;
        if (own_last > own_first) visit_limited_rows(job, lists, panel, KeyRange{begin, end}, own_first, own_last, visit);
        const int32_t from = lists.offsets[block], to = lists.offsets[block + 1];
        if (to > from) visit(Stretch{panel, begin, end, lists.chosen + from, to - from, false});
      }
    }
    after(panel);
  }
}

// `count` rows of a stretch, rows[0] on: what is multiplied at a time.
struct Tile {
  Stretch keys;
  const int32_t* rows = nullptr;
  int count = 0;
};

// Cuts a stretch into tiles of at most kTileRows rows, multiples of kMaxRows but the last.
template <class F>
MOBA_INLINE void for_tiles(const Stretch& s, F&& f) {
  const int64_t tiles = (s.rows + kTileRows - 1) / kTileRows;
  const int64_t size = round_up((s.rows + tiles - 1) / tiles, kMaxRows);
  for (int64_t first = 0; first < s.rows; first += size) f(Tile{s, s.list + first, static_cast<int>(smaller(size, s.rows - first))});
}

// run(tile, next tile or null) for every tile of the chunk, in the order of visit_stretches; after(panel) once every tile up to and
// including that panel has run (panels may be passed over).
template <class Run, class After>
static void visit_tiles(const ChunkJob& job, const RowLists& lists, Run&& run, After&& after) {
  Tile waiting;
  int64_t left = -1, told = -1;  // panels left behind by the walk, and those told of
  auto tell = [&] {
    if (left > told) after(told = left);
  };
  auto proceed = [&](const Tile* next) {
    if (waiting.count > 0) run(waiting, next);
    waiting = next ? *next : Tile{};
    tell();
  };
  visit_stretches(
      job, lists, [&](const Stretch& s) { for_tiles(s, [&](const Tile& tile) { proceed(&tile); }); },
      [&](int64_t panel) {
        left = panel;
        if (waiting.count == 0) tell();
      });
  proceed(nullptr);
}

// The keys of a stretch that row r may read.
MOBA_INLINE KeyRange stretch_limits(const ChunkJob& job, const Stretch& s, int64_t row) {
  if (!s.limited) return {s.begin, s.end};
  const KeyRange l = row_limits(job, row);
  return {larger(s.begin, l.begin), larger(s.begin, smaller(s.end, l.end))};
}

// Rows that a later product reads, asked for (into L2) between the register tiles of an earlier one: rows of queries and of sums lie
// far apart, so the hardware does not foresee them.
class Prefetch {
 public:
  [[gnu::always_inline]] void clear() { next_ = count_ = 0; }
  [[gnu::always_inline]] void add(const void* row, int64_t bytes) { rows_[count_++] = {static_cast<const char*>(row), bytes}; }
  [[gnu::always_inline]] void step() {
    if (next_ == count_) return;
    const Row row = rows_[next_++];
    for (int64_t b = 0; b < row.bytes; b += 64) __builtin_prefetch(row.at + b, 0, 2);
  }

 private:
  struct Row {
    const char* at;
    int64_t bytes;
  };
  int next_ = 0, count_ = 0;
  Row rows_[3 * kTileRows];  // backward: q and dO of the next tile, dQ of this one
};

// scores[row][key in panel] = rows x [words along D] . packed columns, for the column groups that some row of a row group reads.
template <class G>
static void multiply_columns(const ChunkJob& job, const Stretch& s, const int32_t* list, int count, const float* rows, int64_t row_stride,
                             const float* columns, int64_t words, float* scores, Prefetch& ahead) {
  const int64_t origin = s.panel * kPanelKeys;
  for (int64_t g = (s.begin - origin) / G::kColumns * G::kColumns; g < s.end - origin; g += G::kColumns) {
    const float* keys = columns + (origin + g) * words;
    for_row_groups(count, [&](int first, int n) {
      if (s.limited && stretch_limits(job, s, list[first + n - 1]).end <= origin + g) return;  // limits ascend
      float* c[kMaxRows];
      for (int r = 0; r < n; ++r) c[r] = scores + (first + r) * kScoreStride + g;
      row_group<G, Start::zero>(n, rows + first * row_stride, row_stride, 1, keys, G::kColumns, words, c);
      ahead.step();
    });
  }
}

// sums[list[row]] (= * factor) += weights[row][key in panel] . packed rows of the panel.
template <class G, Start S>
static void multiply_rows(const ChunkJob& job, const Stretch& s, const int32_t* list, int count, const float* weights,
                          const float* panel_rows, int64_t padded, float* sums, const float* factor, Prefetch& ahead) {
  const int64_t origin = s.panel * kPanelKeys;
  const int64_t group_words = padded_panel_keys<G>(job.packed.keys, s.panel) / G::kPair * G::kColumns;
  for (int64_t d = 0; d < padded; d += G::kColumns, panel_rows += group_words) {
    for_row_groups(count, [&](int first, int n) {
      const int64_t begin = stretch_limits(job, s, list[first]).begin - origin,
                    end = stretch_limits(job, s, list[first + n - 1]).end - origin;
      const int64_t from = begin / G::kPair, to = (end + G::kPair - 1) / G::kPair;
      float* c[kMaxRows];
      for (int r = 0; r < n; ++r) c[r] = sums + list[first + r] * padded + d;
      for (int64_t r = first + n; r < smaller(first + n + kMaxRows, count); ++r)  // of the next row group
        __builtin_prefetch(sums + list[r] * padded + d, 1, 3);
      row_group<G, S>(n, weights + first * kScoreStride + from, kScoreStride, 1, panel_rows + from * G::kColumns, G::kColumns, to - from, c,
                      factor + first);
      ahead.step();
    });
  }
}

// Lanes whose key lies in [begin, end), for the vector that starts at key k.
template <class V>
MOBA_INLINE typename V::I readable(int64_t k, int64_t begin, int64_t end) {
  const typename V::I key = V::iota() + static_cast<int>(k);
  return (typename V::I)(key >= static_cast<int>(begin)) & (typename V::I)(key < static_cast<int>(end));
}

// C[one row] += A[keys begin .. end) * B rows of a panel, touching no other key: NaN elsewhere in the panel stays there. With
// pairs the halves of border words outside the range are zeroed in a copy. Same order of sums as a whole register tile.
template <class G>
static void exact_product(const float* a, int64_t begin, int64_t end, const float* b, int64_t group_words, int64_t padded, float* row) {
  for (int64_t d = 0; d < padded; d += G::kColumns, b += group_words) {
    float* c[1] = {row + d};
    for (int64_t k = begin / G::kPair; k * G::kPair < end; ++k) {
      const float* word = b + k * G::kColumns;
      alignas(64) uint32_t cleaned[G::kColumns];
      if (G::kPair == 2 && (2 * k < begin || 2 * k + 1 >= end)) {
        const uint32_t keep = (2 * k >= begin ? 0x0000ffffu : 0u) | (2 * k + 1 < end ? 0xffff0000u : 0u);
        __builtin_memcpy(cleaned, word, sizeof(cleaned));
        for (uint32_t& bits : cleaned) bits &= keep;
        word = reinterpret_cast<const float*>(cleaned);
      }
      row_group<G, Start::load>(1, a + k, 0, 1, word, G::kColumns, 1, c);
    }
  }
}

// One row's part of a stretch, as keys of the panel: [from, to) are the columns its tile fills, [first, last) whole vectors around
// the keys it may read. Vectors count in twos from the panel's start, so a key's lane never depends on the limits.
struct RowSpan {
  int64_t from, to, first, last;
  KeyRange keys;
};
template <class G>
MOBA_INLINE RowSpan row_span(const ChunkJob& job, const Stretch& s, int64_t row) {
  constexpr int64_t kUnit = 2 * G::V::kLanes;
  const int64_t origin = s.panel * kPanelKeys;
  const KeyRange limits = stretch_limits(job, s, row), keys{limits.begin - origin, limits.end - origin};
  const int64_t from = (s.begin - origin) / G::kColumns * G::kColumns, to = round_up(s.end - origin, G::kColumns);
  const int64_t first = keys.begin / kUnit * kUnit, last = round_up(keys.end, kUnit);
  return {from, to, first, last, keys};
}

// f(k, masked) for every pair of vectors of the span from key k on; only pairs at its ends may hold keys to mask.
template <class G, class F>
MOBA_INLINE void for_units(const RowSpan& span, F&& f) {
  constexpr int64_t kUnit = 2 * G::V::kLanes;
  int64_t k = span.first;
  const int64_t inner = round_up(span.keys.begin, kUnit), tail = span.keys.end / kUnit * kUnit;
  if (k < inner) f(k, std::true_type()), k += kUnit;
  for (; k < tail; k += kUnit) f(k, std::false_type());
  if (k < span.last) f(k, std::true_type());
}
// Weights of the keys from k on, as the words that products read.
template <class G>
MOBA_INLINE void store_weights(float* weights, int64_t k, typename G::V::F x) {
  if constexpr (G::kPair == 2)
    G::V::store(reinterpret_cast<bf16*>(weights) + k, x);
  else
    G::V::store(weights + k, x);
}
// Weight zero for the keys outside [first, last).
template <class G>
MOBA_INLINE void clear_outside(const RowSpan& span, float* weights) {
  using V = typename G::V;
  auto clear = [&](int64_t k, int64_t end) __attribute__((always_inline)) {
    for (; k < end; k += V::kLanes) store_weights<G>(weights, k, V::zero());
  };
  clear(span.from, span.first);
  clear(span.last, span.to);
}

// Scores are kept in units of log2. With fp32 words queries carry that factor, so that the largest score of a row cancels exactly
// in the exponent; pairs cannot carry it, there it is applied to the product.
template <class G>
MOBA_INLINE float query_factor(const ChunkJob& job) {
  return G::kPair == 1 ? job.scale * kLog2E : 1.0f;
}
template <class G>
MOBA_INLINE float score_factor(const ChunkJob& job) {
  return G::kPair == 1 ? 1.0f : job.scale * kLog2E;
}
// 2^(score * unit - shift).
template <class G>
MOBA_INLINE typename G::V::F probability(typename G::V::F score, float unit, float shift) {
  using V = typename G::V;
  if constexpr (G::kPair == 1)
    return G::exp2(score - V::splat(shift));
  else
    return G::exp2(V::fma(score, V::splat(unit), V::splat(-shift)));
}

// Row r of q, dout (element offsets from the job's pointers) and of lse.
MOBA_INLINE int64_t row_offset(const ChunkJob& job, int64_t row) {
  return row / job.group * job.token_stride + row % job.group * job.head_dim;
}
MOBA_INLINE int64_t lse_offset(const ChunkJob& job, int64_t row) { return row / job.group * job.lse_stride + row % job.group; }

}  // namespace moba::kernels::attention_cpu
