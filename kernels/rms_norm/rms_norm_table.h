#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

template <class T>
struct RmsNormRows {
  // y = x * rstd * w for one row; returns rstd. With residual, sum_out = x + residual is written first and normalised as stored.
  float (*forward)(int64_t cols, double eps, const T* x, const T* residual, const T* weight, T* sum_out, T* y);
  // dx of one row (dsum may be null) and dweight += dy * x * rstd
  void (*backward)(int64_t cols, float rstd, const T* x, const T* weight, const T* dy, const T* dsum, T* dx, float* dweight);
};

struct RmsNormLoops {
  RmsNormRows<float> f32;
  RmsNormRows<bf16> b16;
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(RmsNormLoops, rms_norm_loops);
