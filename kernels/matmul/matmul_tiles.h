// Inside of matmul: a product is cut into tiles of C by its shape alone, each tile is computed by one thread with a serial
// product. So bits cannot depend on the number of threads, whatever the library below does with K.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels::detail {

struct Operand {
  const void* data = nullptr;
  DType dtype = DType::f32;  // f32 or bf16; the two operands may differ (a weight held expanded)
  bool transposed = false;   // A stored [K, M], B stored [N, K]
  int64_t ld = 0;            // elements between stored rows
};

struct Product {
  int64_t m = 0, n = 0, k = 0;
  Operand a, b;
  float alpha = 1, beta = 0;
  void* c = nullptr;
  DType c_dtype = DType::f32;
  int64_t ldc = 0;
};

// Tiles over threads; bf16 operands go to bf16 products where `native`, else they are expanded to fp32 in scratch.
void tiled_product(const Product& p, bool native);

// One tile on the calling thread (matmul_onednn.cpp). f32 operands and C; beta 0: C is not read.
void serial_product_f32(const Product& p);
// bf16 operands, C f32 or bf16, by the CPU's bf16 instructions.
void serial_product_bf16(const Product& p);

}  // namespace moba::kernels::detail
