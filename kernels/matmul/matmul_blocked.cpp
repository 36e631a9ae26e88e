#include "kernels/matmul/matmul_blocked.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise_table.h"
#include "kernels/matmul/blocked_table.h"

namespace moba::kernels::detail {
namespace {

constexpr int64_t kPanel = 2048;  // rows and columns of C worked on at a time: 16 MB, stays in L3 while K is walked
// Packed of A and B at a time (4 MB): as many blocks of K as fit, so that threads rarely wait for each other, and few enough that they
// are read from cache.
constexpr int64_t kPackedFloats = 1 << 20;
// Work of one thread at a time: its part of A (96 rows, 100 KB) stays in L2 while it walks its panels of B.
constexpr int64_t kItemRows = 96, kItemCols = 128;

// Rows of A this many floats apart share their sets of L1, and would drive each other and B out of it.
constexpr int64_t kSameSets = 1024;

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }
int64_t round_up(int64_t size, int64_t piece) { return pieces(size, piece) * piece; }

// Products below this many multiply-adds run on the calling thread: waking the others costs more.
constexpr int64_t kSerial = 1 << 17;

// Grown, never shrunk, one per calling thread; 64-byte aligned.
class Scratch {
 public:
  float* get(int64_t floats) {
    if (floats > size_) {
      data_.reset();
      data_.reset(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(round_up(floats * 4, 64)))));
      if (!data_) throw std::bad_alloc();
      size_ = floats;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

const BlockedLoops& loops() { return pick_isa(sse::blocked_loops, avx2::blocked_loops, avx512::blocked_loops); }

// One product with its strides filled in and its scratch laid out.
template <class T>
class Blocked {
 public:
  Blocked(const MatmulArgs& p, const BlockedPacking<T>& packing)
      : p_(p),
        loops_(loops()),
        packing_(packing),
        item_rows_(round_up(kItemRows, loops_.rows)),
        few_rows_(p.m <= item_rows_),
        lda_(p.lda ? p.lda : (p.transpose_a ? p.m : p.k)),
        a_in_place_(std::is_same_v<T, float> && loops_.reads_in_place && !p.transpose_a && !few_rows_ && lda_ % kSameSets != 0),
        ldb_(p.ldb ? p.ldb : (p.transpose_b ? p.k : p.n)),
        ldc_(p.ldc ? p.ldc : p.n),
        group_(loops_.rows * kPackedRow),
        panel_(loops_.cols * std::min(p.k, kDepth)) {
    thread_local Scratch scratch;
    const int64_t groups = pieces(std::min(p.m, kPanel), loops_.rows), panels = pieces(std::min(p.n, kPanel), loops_.cols);
    a_block_ = (a_in_place_ ? 1 : groups) * group_;
    b_block_ = few_rows_ ? 0 : panels * panel_;
    most_blocks_ = std::clamp<int64_t>(kPackedFloats / (a_block_ + b_block_), 1, pieces(p.k, kDepth));
    const int64_t c = p.out_dtype == DType::bf16 ? std::min(p.m, kPanel) * std::min(p.n, kPanel) : 0;
    a_ = scratch.get(most_blocks_ * (a_block_ + b_block_) + c);
    b_ = a_ + most_blocks_ * a_block_;
    c_ = b_ + most_blocks_ * b_block_;
  }

  void run() {
    for (int64_t row = 0; row < p_.m; row += kPanel)
      for (int64_t col = 0; col < p_.n; col += kPanel) panel(row, std::min(kPanel, p_.m - row), col, std::min(kPanel, p_.n - col));
  }

 private:
  template <class F>
  void for_items(int64_t count, F&& f) {
    if (p_.m * p_.n * p_.k > kSerial) return parallel_items(count, f);
    for (int64_t item = 0; item < count; ++item) f(item, 0);
  }

  // C[row .. row + rows, col .. col + cols], K in ascending blocks
  void panel(int64_t row, int64_t rows, int64_t col, int64_t cols) {
    const bool through_scratch = p_.out_dtype == DType::bf16;
    float* c = through_scratch ? c_ : static_cast<float*>(p_.c) + row * ldc_ + col;
    const int64_t ldc = through_scratch ? cols : ldc_;
    const float first_beta = through_scratch ? 0.0f : p_.beta;
    for (int64_t k = 0; k < p_.k; k += most_blocks_ * kDepth) {
      const int64_t depth = std::min(most_blocks_ * kDepth, p_.k - k);
      pack(row, rows, col, cols, k, depth);
      multiply(row, rows, col, cols, k, depth, k == 0 ? first_beta : 1.0f, c, ldc);
    }
    if (through_scratch) store_bf16(row, rows, col, cols);
  }

  // All blocks of K in [k, k + depth). An item is some groups of A or some panels of B of one block. Of an A that is read in place only
  // the group that its last rows do not fill is packed.
  void pack(int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t k, int64_t depth) {
    constexpr int64_t kGroupsPerItem = 16, kPanelsPerItem = 8;
    const int64_t panels = pieces(cols, loops_.cols), groups_end = pieces(rows, loops_.rows);
    const int64_t groups_begin = a_in_place_ ? rows / loops_.rows : 0;
    const int64_t a_items = pieces(groups_end - groups_begin, kGroupsPerItem);
    const int64_t items = a_items + (few_rows_ ? 0 : pieces(panels, kPanelsPerItem));
    for_items(pieces(depth, kDepth) * items, [&](int64_t item, int) {
      const int64_t block = item / items, part = item % items, first = k + block * kDepth, count = std::min(kDepth, k + depth - first);
      if (part < a_items) {
        const int64_t begin = part * kGroupsPerItem, row_begin = (groups_begin + begin) * loops_.rows;
        const int64_t row_end = std::min(rows, row_begin + kGroupsPerItem * loops_.rows);
        pack_groups(row + row_begin, row_end - row_begin, first, count, a_ + block * a_block_ + begin * group_);
      } else
        for (int64_t j = (part - a_items) * kPanelsPerItem; j < std::min(panels, (part - a_items + 1) * kPanelsPerItem); ++j)
          pack_panel(j, col, cols, first, count, b_ + block * b_block_ + j * panel_);
    });
  }

  void pack_groups(int64_t row, int64_t rows, int64_t k, int64_t depth, float* groups) {
    const T* a = static_cast<const T*>(p_.a);
    if (p_.transpose_a)
      packing_.a_columns(rows, depth, a + k * lda_ + row, lda_, groups);
    else
      packing_.a_rows(rows, depth, a + row * lda_ + k, lda_, groups);
  }

  void pack_panel(int64_t j, int64_t col, int64_t cols, int64_t k, int64_t depth, float* panel) {
    const int64_t first = col + j * loops_.cols, count = std::min(loops_.cols, col + cols - first);
    const T* b = static_cast<const T*>(p_.b);
    if (p_.transpose_b)
      packing_.b_columns(depth, count, b + first * ldb_ + k, ldb_, panel);
    else
      packing_.b_rows(depth, count, b + k * ldb_ + first, ldb_, panel);
  }

  void multiply(int64_t first_row, int64_t rows, int64_t first_col, int64_t cols, int64_t k, int64_t depth, float beta, float* c,
                int64_t ldc) {
    const int64_t across = pieces(cols, kItemCols);
    for_items(pieces(rows, item_rows_) * across, [&](int64_t item, int) {
      const int64_t row = item / across * item_rows_, end = std::min(row + item_rows_, rows), col = item % across * kItemCols;
      const int64_t in_place_end = a_in_place_ ? end / loops_.rows * loops_.rows : row;
      BlockedTile t;
      t.cols = std::min(kItemCols, cols - col);
      t.a_in_rows = !p_.transpose_a;
      t.b_panel = panel_;
      t.alpha = p_.alpha;
      t.ldc = ldc;
      auto tile = [&](int64_t begin, int64_t stop, const float* a, int64_t a_row, int64_t block) {
        if (begin == stop) return;
        t.rows = stop - begin;
        t.a = a;
        t.a_row = a_row;
        t.a_group = loops_.rows * a_row;
        t.c = c + begin * ldc + col;
        if (few_rows_)
          multiply_few_rows(t, first_col, col, cols, k + block * kDepth);
        else
          loops_.tile(t);
      };
      for (int64_t block = 0; block * kDepth < depth; ++block) {
        t.depth = std::min(kDepth, depth - block * kDepth);
        t.b = b_ + block * b_block_ + col / loops_.cols * panel_;
        t.beta = block == 0 ? beta : 1.0f;
        if (a_in_place_)
          tile(row, in_place_end, static_cast<const float*>(p_.a) + (first_row + row) * lda_ + k + block * kDepth, lda_, block);
        const int64_t packed_group = a_in_place_ ? 0 : row / loops_.rows;
        tile(in_place_end, end, a_ + block * a_block_ + packed_group * group_, kPackedRow, block);
      }
    });
  }

  // The tile panel by panel, each packed just before its use; a single row takes the columns of a stored transpose as they are.
  void multiply_few_rows(BlockedTile t, int64_t first_col, int64_t col, int64_t cols, int64_t k) {
    constexpr int64_t kMostCols = 32;  // of any register tile
    alignas(64) float panel[kDepth * kMostCols];
    const int64_t end = col + t.cols;
    if (p_.m == 1 && !p_.transpose_a && p_.transpose_b) {
      const int64_t whole = t.cols / loops_.cols * loops_.cols;
      const T* b = static_cast<const T*>(p_.b) + (first_col + col) * ldb_ + k;
      packing_.row({whole, t.depth, t.a, b, ldb_, t.alpha, t.beta, t.c});
      col += whole;
      t.c += whole;
    }
    t.b = panel;
    for (int64_t j = col; j < end; j += loops_.cols, t.c += loops_.cols) {
      t.cols = std::min(loops_.cols, end - j);
      pack_panel(j / loops_.cols, first_col, cols, k, t.depth, panel);
      loops_.tile(t);
    }
  }

  // C (bf16) = the panel's sums + beta * C.
  void store_bf16(int64_t row, int64_t rows, int64_t col, int64_t cols) {
    parallel_for(rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* sums = c_ + i * cols;
        bf16* c = static_cast<bf16*>(p_.c) + (row + i) * ldc_ + col;
        if (p_.beta != 0)
          for (int64_t j = 0; j < cols; ++j) sums[j] += p_.beta * to_float(c[j]);
        elementwise().to_bf16(cols, sums, c);
      }
    });
  }

  const MatmulArgs& p_;
  const BlockedLoops& loops_;
  const BlockedPacking<T>& packing_;
  const int64_t item_rows_;
  const bool few_rows_;  // each panel of B is used once: packed by its user into L1 instead of beforehand
  const int64_t lda_;
  const bool a_in_place_;  // its rows are read where they lie
  const int64_t ldb_, ldc_, group_, panel_;
  int64_t a_block_, b_block_;  // floats packed of A and B per block of K
  int64_t most_blocks_;        // packed at a time
  float *a_, *b_, *c_;
};

}  // namespace

void blocked_product(const MatmulArgs& p) {
  if (p.dtype == DType::bf16)
    Blocked<bf16>(p, loops().b16).run();
  else
    Blocked<float>(p, loops().f32).run();
}

}  // namespace moba::kernels::detail
