#pragma once
#include "kernels/adamw/adamw.h"
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

// The constants of one step, computed in fp64 once per call.
struct AdamwStep {
  double grad_scale, beta1, beta2, eps;
  double keep;              // 1 - lr * weight_decay
  double step_size;         // lr / (1 - beta1^t)
  double sqrt_correction2;  // sqrt(1 - beta2^t)
};

struct AdamwLoops {
  // copy: bf16 compute copy or null
  void (*update)(int64_t n, const AdamwStep& s, const float* g, float* w, float* m, float* v, bf16* copy);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(AdamwLoops, adamw_loops);
