// Softmax cross-entropy over logits rows, the inner part of the fused head (linear + loss), which feeds it chunks of tokens so
// that a sequence's [T, V] logits never exist at once.
//   loss_t = logsumexp(logits_t) - logits_t[target_t], only where mask_t (target >= 0)
//   dlogits_t = scale * (softmax(logits_t) - onehot(target_t)); zero rows where not counted
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct CrossEntropyArgs {
  Stream stream;
  DType dtype = DType::f32;       // logits: f32 or f64 (matmul writes f32 for bf16 operands)
  DType grad_dtype = DType::f32;  // dlogits: f32, bf16, f64
  int64_t rows = 0, vocab = 0;
  const void* logits = nullptr;      // [rows, V]
  const int32_t* targets = nullptr;  // [rows]; -1 = not counted; >= V: Error
  double scale = 1;                  // d(total)/d(loss_t), usually 1 / counted targets of the global batch
  double* losses = nullptr;          // [rows] nats, 0 where not counted; or null
  void* dlogits = nullptr;           // [rows, V]; may alias logits when dtypes match; or null
};

void cross_entropy(const CrossEntropyArgs& args);
void cross_entropy_reference(const CrossEntropyArgs& args);

}  // namespace moba::kernels
