#include "kernels/matmul/matmul.h"

#include "kernels/common/check.h"
#include "kernels/common/pick_isa.h"
#include "kernels/common/profile.h"
#include "kernels/matmul/matmul_blocked.h"
#include "kernels/matmul/matmul_cuda.h"
#include "kernels/matmul/matmul_native.h"

namespace moba::kernels {
namespace {

void check_stride(const char* name, int64_t ld, int64_t cols) {
  MOBA_CHECK(ld == 0 || ld >= cols, "matmul: {} must be 0 (packed) or at least the row length {}, got {}", name, cols, ld);
}

void validate(const MatmulArgs& p) {
  const bool known = p.dtype == DType::f32 || p.dtype == DType::bf16 || p.dtype == DType::f64;
  MOBA_CHECK(known, "matmul: dtype {} is not supported; use f32, bf16 or f64", dtype_name(p.dtype));
  MOBA_CHECK(p.out_dtype == p.dtype || (p.dtype == DType::bf16 && p.out_dtype == DType::f32), "matmul: {} operands cannot give {}; use {}",
             dtype_name(p.dtype), dtype_name(p.out_dtype), p.dtype == DType::bf16 ? "bf16 or f32" : dtype_name(p.dtype));
  MOBA_CHECK(p.m >= 0 && p.n >= 0 && p.k >= 0, "matmul: sizes must be >= 0, got m {}, n {}, k {}", p.m, p.n, p.k);
  check_stride("lda", p.lda, p.transpose_a ? p.m : p.k);
  check_stride("ldb", p.ldb, p.transpose_b ? p.k : p.n);
  check_stride("ldc", p.ldc, p.n);
}

// In a Linear layer: forward reads the weight as [out, in], the input's gradient as [in, out], the weight's gradient sums over tokens.
const char* name_of(const MatmulArgs& p) {
  if (p.transpose_a) return "matmul, weight gradient";
  return p.transpose_b ? "matmul, forward" : "matmul, input gradient";
}

KernelWork work_of(const MatmulArgs& p) {
  const double written = bytes_of(p.m * p.n, p.out_dtype) * (p.beta != 0 ? 2 : 1);
  return {2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k),
          bytes_of(p.m * p.k + p.k * p.n, p.dtype) + written, p.m, p.n, p.k};
}

}  // namespace

void matmul(const MatmulArgs& p) {
  validate(p);
  if (p.stream.device == DeviceType::cuda) return cuda::matmul(p);
  if (p.m == 0 || p.n == 0) return;
  const ProfileScope profile(name_of(p), work_of(p));
  if (use_reference(p.dtype) || p.k == 0) return matmul_reference(p);
#ifdef MOBA_ONEDNN
  if (p.dtype == DType::bf16 && has_bf16_products()) return detail::native_bf16_product(p);
#endif
  detail::blocked_product(p);
}

}  // namespace moba::kernels
