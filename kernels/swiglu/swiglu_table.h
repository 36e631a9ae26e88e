#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

struct SwigluLoops {
  void (*forward_f32)(int64_t n, const float* gate, const float* up, float* y);
  void (*forward_bf16)(int64_t n, const bf16* gate, const bf16* up, bf16* y);
  void (*backward_f32)(int64_t n, const float* gate, const float* up, const float* dy, float* dgate, float* dup);
  void (*backward_bf16)(int64_t n, const bf16* gate, const bf16* up, const bf16* dy, bf16* dgate, bf16* dup);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(SwigluLoops, swiglu_loops);
