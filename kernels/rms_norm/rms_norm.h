// RMSNorm (arXiv 1910.07467): y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), rows of C elements.
// Saved: x, rstd. Backward: g = dy * w; dx = rstd * (g - x * rstd^2 * mean(g * x)); dw += sum over rows of dy * x * rstd.
// With `residual` (forward): h = x + residual is written to sum_out and normalised instead of x (one pass over memory).
// dw is accumulated in fp32 (f64 for f64) over fixed row pieces, so its bits do not depend on threads.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct RmsNormArgs {
  Stream stream;
  DType dtype = DType::f32;  // x, y, residual: f32, bf16, f64; w has the same dtype
  int64_t rows = 0, cols = 0;
  double eps = 1e-5;
  const void* x = nullptr;         // [rows, cols]
  const void* residual = nullptr;  // [rows, cols] or null
  const void* weight = nullptr;    // [cols]
  void* sum_out = nullptr;         // [rows, cols], required with residual
  void* y = nullptr;               // [rows, cols]
  void* rstd = nullptr;            // [rows] f32 (f64 for f64)
};

struct RmsNormGradArgs {
  Stream stream;
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0;
  const void* x = nullptr;  // what was normalised
  const void* weight = nullptr;
  const void* rstd = nullptr;
  const void* dy = nullptr;
  const void* dsum = nullptr;  // gradient arriving at sum_out, added to dx; or null
  void* dx = nullptr;          // [rows, cols]
  void* dweight = nullptr;     // [cols] f32 (f64 for f64), accumulated into
};

void rms_norm_forward(const RmsNormArgs& args);
void rms_norm_backward(const RmsNormGradArgs& args);
void rms_norm_forward_reference(const RmsNormArgs& args);
void rms_norm_backward_reference(const RmsNormGradArgs& args);

}  // namespace moba::kernels
