#include "kernels/matmul/matmul_tiles.h"

#include <algorithm>
#include <memory>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise_table.h"

#ifdef MOBA_ONEDNN

namespace moba::kernels::detail {
namespace {

constexpr int64_t kTile = 512;       // rows and columns of a full tile
constexpr int64_t kLeastTile = 128;  // small outputs are cut down to this, so that several threads find work
constexpr int64_t kWantedTiles = 16;
constexpr int64_t kDepth = 1024;  // of an expanded bf16 block: A and B of a tile take 2 * 2 MiB of scratch per thread

struct TileShape {
  int64_t m, n;
};

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

TileShape choose_tile(int64_t m, int64_t n) {
  TileShape t = {std::min(m, kTile), std::min(n, kTile)};
  while (pieces(m, t.m) * pieces(n, t.n) < kWantedTiles && std::max(t.m, t.n) > kLeastTile) {
    int64_t& longer = t.m > t.n ? t.m : t.n;
    longer = std::max(kLeastTile, longer / 2);
  }
  return t;
}

// Grown, never shrunk; 64-byte aligned. At most (2 * kDepth + kTile) * kTile floats per thread.
class Scratch {
 public:
  float* get(int64_t floats) {
    if (floats > size_) {
      data_.reset(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>((floats * 4 + 63) / 64 * 64))));
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

// The block of op(X) with `rows` x `cols` at (row, col), as an operand of its own.
Operand block(const Operand& x, int64_t row, int64_t col) {
  Operand o = x;
  const int64_t at = x.transposed ? col * x.ld + row : row * x.ld + col;
  o.data = static_cast<const char*>(x.data) + at * static_cast<int64_t>(dtype_size(x.dtype));
  return o;
}

// bf16 -> fp32 copy of a block whose op() is rows x cols; fp32 operands pass through.
Operand expand(const Operand& x, int64_t rows, int64_t cols, float* scratch) {
  if (x.dtype == DType::f32) return x;
  const int64_t stored_rows = x.transposed ? cols : rows, stored_cols = x.transposed ? rows : cols;
  const bf16* from = static_cast<const bf16*>(x.data);
  for (int64_t r = 0; r < stored_rows; ++r) elementwise().to_f32(stored_cols, from + r * x.ld, scratch + r * stored_cols);
  return {scratch, DType::f32, x.transposed, stored_cols};
}

// C (bf16) = sums + beta * C.
void store_bf16(const Product& p, const float* sums) {
  bf16* c = static_cast<bf16*>(p.c);
  for (int64_t i = 0; i < p.m; ++i, c += p.ldc, sums += p.n) {
    if (p.beta == 0) {
      elementwise().to_bf16(p.n, sums, c);
      continue;
    }
    for (int64_t j = 0; j < p.n; ++j) c[j] = to_bf16(sums[j] + p.beta * to_float(c[j]));
  }
}

// One tile through fp32: depth blocks are expanded and accumulated in order.
void expanded_product(const Product& tile) {
  thread_local Scratch scratch;
  const int64_t depth = std::min(tile.k, kDepth);
  float* a = scratch.get((tile.m + tile.n) * depth + tile.m * tile.n);
  float* b = a + tile.m * depth;
  Product step = tile;
  if (tile.c_dtype == DType::bf16) {
    step.c = b + tile.n * depth;
    step.c_dtype = DType::f32;
    step.ldc = tile.n;
    step.beta = 0;
  }
  for (int64_t l = 0; l < tile.k; l += depth) {
    step.k = std::min(depth, tile.k - l);
    step.a = expand(block(tile.a, 0, l), tile.m, step.k, a);
    step.b = expand(block(tile.b, l, 0), step.k, tile.n, b);
    serial_product_f32(step);
    step.beta = 1;
  }
  if (tile.c_dtype == DType::bf16) store_bf16(tile, static_cast<const float*>(step.c));
}

}  // namespace

void tiled_product(const Product& p, bool native) {
  const TileShape shape = choose_tile(p.m, p.n);
  const int64_t across = pieces(p.n, shape.n);
  const bool expanded = p.a.dtype == DType::bf16 || p.b.dtype == DType::bf16;
  parallel_items(pieces(p.m, shape.m) * across, [&](int64_t item, int) {
    const int64_t row = item / across * shape.m, col = item % across * shape.n;
    Product tile = p;
    tile.m = std::min(shape.m, p.m - row);
    tile.n = std::min(shape.n, p.n - col);
    tile.a = block(p.a, row, 0);
    tile.b = block(p.b, 0, col);
    tile.c = static_cast<char*>(p.c) + (row * p.ldc + col) * static_cast<int64_t>(dtype_size(p.c_dtype));
    if (!expanded) return serial_product_f32(tile);
    if (native) return serial_product_bf16(tile);
    expanded_product(tile);
  });
}

}  // namespace moba::kernels::detail

#endif
