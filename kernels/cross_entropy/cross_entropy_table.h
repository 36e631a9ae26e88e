#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

struct SoftmaxSum {
  float max;   // of the row
  double sum;  // of exp(x - max)
};

struct CrossEntropyLoops {
  SoftmaxSum (*reduce)(int64_t vocab, const float* logits);
  // out = factor * exp(logits - max); out may alias logits
  void (*write_f32)(int64_t vocab, const float* logits, float max, float factor, float* out);
  void (*write_bf16)(int64_t vocab, const float* logits, float max, float factor, bf16* out);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(CrossEntropyLoops, cross_entropy_loops);
