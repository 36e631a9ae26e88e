// AdamW (arXiv 1711.05101), decoupled weight decay, one fused pass:
//   g' = g * grad_scale; m = b1*m + (1-b1)*g'; v = b2*v + (1-b2)*g'^2
//   w -= lr * ( (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay * w )
// PyTorch's order: w *= 1 - lr*weight_decay first, then the Adam step. Optional compute copy in bf16, rounded to nearest even.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct AdamwArgs {
  Stream stream;
  DType dtype = DType::f32;  // w, m, v, g: f32 (f64 for checks)
  int64_t n = 0;
  void* weight = nullptr;  // fp32 master
  const void* grad = nullptr;
  void* m = nullptr;
  void* v = nullptr;
  bf16* copy = nullptr;  // bf16 compute copy or null
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;       // t, 1-based
  double grad_scale = 1;  // clipping factor
};

void adamw(const AdamwArgs& args);
void adamw_reference(const AdamwArgs& args);

}  // namespace moba::kernels
