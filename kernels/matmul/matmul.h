// Matrix products on row-major 2-d operands: C[M,N] = alpha * op(A) * op(B) + beta * C.
// f32: fp32 throughout. bf16 operands: fp32 accumulation, C in bf16 or f32. f64: reference. f32 and bf16 operands never mix.
// CPU: our own blocked product (matmul_blocked.cpp) for fp32, and for bf16 operands, expanded to fp32 while they are packed, where
// the CPU has no bf16 products; oneDNN (matmul_onednn.cpp) where it has. Measured on Zen 3, one thread, share of the FMA peak: 86 to
// 93 % for the shapes of a decoder (N, K from 256), f32 and bf16 alike; oneDNN's sgemm 77 to 96 %, but its bits depend on threads.
// Bits do not depend on threads; in the blocked product they do not depend on the other rows and columns either.
// Operands are packed block by block in cache as the product goes, but for most row-major fp32 A, which are read in place: a weight needs
// no packed form of its own (docs/log.md).
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct MatmulArgs {
  Stream stream;
  int64_t m = 0, n = 0, k = 0;
  DType dtype = DType::f32;           // of A and B: f32, bf16, f64
  DType out_dtype = DType::f32;       // of C: dtype, or f32 for bf16 operands
  bool transpose_a = false;           // A stored [K, M]
  bool transpose_b = false;           // B stored [N, K]  (a Linear's weight [out, in])
  int64_t lda = 0, ldb = 0, ldc = 0;  // elements between stored rows; 0 = packed
  float alpha = 1, beta = 0;          // beta 0: C is not read
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
};

void matmul(const MatmulArgs& args);
void matmul_reference(const MatmulArgs& args);

}  // namespace moba::kernels
