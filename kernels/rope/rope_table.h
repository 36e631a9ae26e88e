#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

struct RopeLoops {
  // cos, sin of position * inv_freq[0 .. pairs), computed in fp64 and rounded
  void (*angles)(int64_t pairs, double position, const double* inv_freq, float* cos, float* sin);
  // rotates `pairs` pairs (x1[i], x2[i]); y may equal x
  void (*rotate_f32)(int64_t pairs, const float* cos, const float* sin, const float* x1, const float* x2, float* y1, float* y2);
  void (*rotate_bf16)(int64_t pairs, const float* cos, const float* sin, const bf16* x1, const bf16* x2, bf16* y1, bf16* y2);
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(RopeLoops, rope_loops);
