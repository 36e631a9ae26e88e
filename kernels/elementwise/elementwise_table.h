// The vectorised loops of the element-wise operations, one table per instruction set.
#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

struct ElementwiseLoops {
  void (*add_f32)(int64_t n, const float* a, const float* b, float* y);
  void (*add_bf16)(int64_t n, const bf16* a, const bf16* b, bf16* y);
  void (*multiply_f32)(int64_t n, const float* a, const float* b, float* y);
  void (*multiply_bf16)(int64_t n, const bf16* a, const bf16* b, bf16* y);
  void (*accumulate_f32_f32)(int64_t n, const float* src, float* dst);
  void (*accumulate_f32_bf16)(int64_t n, const bf16* src, float* dst);
  void (*accumulate_bf16_bf16)(int64_t n, const bf16* src, bf16* dst);
  void (*scale_f32)(int64_t n, float factor, const float* x, float* y);
  void (*scale_bf16)(int64_t n, float factor, const bf16* x, bf16* y);
  void (*to_bf16)(int64_t n, const float* x, bf16* y);
  void (*to_f32)(int64_t n, const bf16* x, float* y);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(ElementwiseLoops, elementwise_loops);

namespace moba::kernels {
inline const ElementwiseLoops& elementwise() {
  return pick_isa(sse::elementwise_loops, avx2::elementwise_loops, avx512::elementwise_loops);
}
}  // namespace moba::kernels
