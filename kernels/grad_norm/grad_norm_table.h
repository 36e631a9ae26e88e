#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

struct GradNormLoops {
  double (*sum_of_squares_f32)(int64_t n, const float* x);
  double (*sum_of_squares_bf16)(int64_t n, const bf16* x);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(GradNormLoops, grad_norm_loops);
