#include "kernels/matmul/matmul_blocked.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise_table.h"
#include "kernels/matmul/blocked_table.h"

namespace moba::kernels::detail {
namespace {

// A panel of C: what is packed of A and B for it (2 * 2 MB) and the panel itself (16 MB) stay in L3 while K is walked.
constexpr int64_t kPanel = 2048;
// Work of one thread at a time: its part of A (96 rows, 100 KB) stays in L2 while it walks its panels of B.
constexpr int64_t kItemRows = 96, kItemCols = 128;

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }
int64_t round_up(int64_t size, int64_t piece) { return pieces(size, piece) * piece; }

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
        lda_(p.lda ? p.lda : (p.transpose_a ? p.m : p.k)),
        ldb_(p.ldb ? p.ldb : (p.transpose_b ? p.k : p.n)),
        ldc_(p.ldc ? p.ldc : p.n),
        group_(loops_.rows * kPackedRow),
        panel_(loops_.cols * std::min(p.k, kDepth)) {
    thread_local Scratch scratch;
    const int64_t a = pieces(std::min(p.m, kPanel), loops_.rows) * group_, b = pieces(std::min(p.n, kPanel), loops_.cols) * panel_;
    const int64_t c = p.out_dtype == DType::bf16 ? std::min(p.m, kPanel) * std::min(p.n, kPanel) : 0;
    a_ = scratch.get(a + b + c);
    b_ = a_ + a;
    c_ = b_ + b;
  }

  void run() {
    for (int64_t row = 0; row < p_.m; row += kPanel)
      for (int64_t col = 0; col < p_.n; col += kPanel) panel(row, std::min(kPanel, p_.m - row), col, std::min(kPanel, p_.n - col));
  }

 private:
  // C[row .. row + rows, col .. col + cols], K in ascending blocks
  void panel(int64_t row, int64_t rows, int64_t col, int64_t cols) {
    const bool through_scratch = p_.out_dtype == DType::bf16;
    float* c = through_scratch ? c_ : static_cast<float*>(p_.c) + row * ldc_ + col;
    const int64_t ldc = through_scratch ? cols : ldc_;
    for (int64_t k = 0; k < p_.k; k += kDepth) {
      const int64_t depth = std::min(kDepth, p_.k - k);
      pack(row, rows, col, cols, k, depth);
      const float first_beta = through_scratch ? 0.0f : p_.beta;
      multiply(rows, cols, depth, k == 0 ? first_beta : 1.0f, c, ldc);
    }
    if (through_scratch) store_bf16(row, rows, col, cols);
  }

  void pack(int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t k, int64_t depth) {
    constexpr int64_t kGroupsPerItem = 8, kPanelsPerItem = 4;
    const int64_t groups = pieces(rows, loops_.rows), panels = pieces(cols, loops_.cols);
    const int64_t a_items = pieces(groups, kGroupsPerItem);
    parallel_items(a_items + pieces(panels, kPanelsPerItem), [&](int64_t item, int) {
      if (item < a_items)
        for (int64_t g = item * kGroupsPerItem; g < std::min(groups, (item + 1) * kGroupsPerItem); ++g) pack_group(g, row, rows, k, depth);
      else
        for (int64_t j = (item - a_items) * kPanelsPerItem; j < std::min(panels, (item - a_items + 1) * kPanelsPerItem); ++j)
          pack_panel(j, col, cols, k, depth);
    });
  }

  void pack_group(int64_t g, int64_t row, int64_t rows, int64_t k, int64_t depth) {
    const int64_t first = row + g * loops_.rows, count = std::min(loops_.rows, row + rows - first);
    const T* a = static_cast<const T*>(p_.a);
    if (p_.transpose_a)
      packing_.a_columns(count, depth, a + k * lda_ + first, lda_, a_ + g * group_);
    else
      packing_.a_rows(count, depth, a + first * lda_ + k, lda_, a_ + g * group_);
  }

  void pack_panel(int64_t j, int64_t col, int64_t cols, int64_t k, int64_t depth) {
    const int64_t first = col + j * loops_.cols, count = std::min(loops_.cols, col + cols - first);
    const T* b = static_cast<const T*>(p_.b);
    if (p_.transpose_b)
      packing_.b_columns(depth, count, b + first * ldb_ + k, ldb_, b_ + j * panel_);
    else
      packing_.b_rows(depth, count, b + k * ldb_ + first, ldb_, b_ + j * panel_);
  }

  void multiply(int64_t rows, int64_t cols, int64_t depth, float beta, float* c, int64_t ldc) {
    const int64_t across = pieces(cols, kItemCols);
    parallel_items(pieces(rows, item_rows_) * across, [&](int64_t item, int) {
      const int64_t row = item / across * item_rows_, col = item % across * kItemCols;
      BlockedTile t;
      t.rows = std::min(item_rows_, rows - row);
      t.cols = std::min(kItemCols, cols - col);
      t.depth = depth;
      t.a_in_rows = !p_.transpose_a;
      t.a = a_ + row / loops_.rows * group_;
      t.b = b_ + col / loops_.cols * panel_;
      t.a_group = group_;
      t.b_panel = panel_;
      t.alpha = p_.alpha;
      t.beta = beta;
      t.c = c + row * ldc + col;
      t.ldc = ldc;
      loops_.tile(t);
    });
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
  const int64_t item_rows_, lda_, ldb_, ldc_, group_, panel_;
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
