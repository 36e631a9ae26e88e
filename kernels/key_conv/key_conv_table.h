#pragma once
#include "kernels/common/pick_isa.h"

namespace moba::kernels {

constexpr int64_t kKeyConvMaxWidth = 8;

// One token at a time over all channels. Weights are given as fp32 [W, channels].
template <class T>
struct KeyConvRows {
  // taps[l] = row of k_{t-l} or null for a missing token; out = k_t + SiLU(sum_l w_l * taps_l)
  void (*forward)(int64_t channels, int64_t width, const float* weight, const T* const* taps, T* out);
  // du = dout * SiLU'(u_t); dweight[l] += du * taps_l
  void (*backward_taps)(int64_t channels, int64_t width, const float* weight, const T* const* taps, const T* dout, float* du,
                        float* dweight);
  // dk_t = dout_t + sum_l w_l * du_{t+l}; later[l] = row of du_{t+l} or null past the end of the sequence
  void (*backward_input)(int64_t channels, int64_t width, const float* weight, const float* const* later, const T* dout, T* dk);
};

struct KeyConvLoops {
  KeyConvRows<float> f32;
  KeyConvRows<bf16> b16;
};

}  // namespace moba::kernels

MOBA_DECLARE_LOOPS(KeyConvLoops, key_conv_loops);
