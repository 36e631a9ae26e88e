// The inner loops of the blocked product, one table per instruction set.
//
// op(A) and op(B) are packed in blocks of at most kDepth along K into fp32, bf16 operands being expanded on the way:
//   A: groups of `rows` rows of C. From a row-major A each row lies apart (kPackedRow floats), from a stored transpose the
//      `rows` values of one k lie together: either way packing copies runs of memory and never transposes A. Row-major fp32 is
//      mostly not packed at all: its rows are read where they lie.
//   B: panels of `cols` columns of C, the `cols` values of one k together; missing columns are 0.
#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

constexpr int64_t kDepth = 256;              // a panel of B (16 columns) takes 16 KB: half of L1
constexpr int64_t kPackedRow = kDepth + 16;  // 17 cache lines: rows of a group fall into different sets

// A rectangle of C whose operands lie ready: C = alpha * A B + (first block of K: beta * C, later: C).
struct BlockedTile {
  int64_t rows, cols, depth;
  bool a_in_rows;  // layout of a
  int64_t a_row;   // where a_in_rows: its rows are a_row floats apart
  const float* a;  // groups, a_group floats apart
  const float* b;  // panels, b_panel floats apart
  int64_t a_group, b_panel;
  float alpha, beta;  // beta 0: C is not read
  float* c;
  int64_t ldc;
};

// One row of C against columns of a stored transpose, b[col * ldb + k], read where they lie; else as BlockedTile.
template <class T>
struct BlockedRow {
  int64_t cols, depth;  // cols: a multiple of the register tile's
  const float* a;
  const T* b;
  int64_t ldb;
  float alpha, beta;
  float* c;
};

template <class T>
struct BlockedPacking {
  // `rows` rows of A, a[row * lda + k] or, from a stored transpose, a[k * lda + row], into groups that lie one after another
  void (*a_rows)(int64_t rows, int64_t depth, const T* a, int64_t lda, float* groups);
  void (*a_columns)(int64_t rows, int64_t depth, const T* a, int64_t lda, float* groups);
  // one panel from row-major B: b[k * ldb + col], or from a stored transpose: b[col * ldb + k]
  void (*b_rows)(int64_t depth, int64_t cols, const T* b, int64_t ldb, float* panel);
  void (*b_columns)(int64_t depth, int64_t cols, const T* b, int64_t ldb, float* panel);
  void (*row)(const BlockedRow<T>& t);  // the bits of `tile`, without packing
};

struct BlockedLoops {
  int64_t rows, cols;   // of the register tile
  bool reads_in_place;  // any a_row; else kPackedRow only
  void (*tile)(const BlockedTile& t);
  BlockedPacking<float> f32;
  BlockedPacking<bf16> b16;
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(BlockedLoops, blocked_loops);
