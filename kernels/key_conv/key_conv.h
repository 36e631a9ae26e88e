// Key convolution (FlashMoBA, arXiv 2511.11571, appendix C): k'_t = k_t + SiLU(sum_{l<W} w_l * k_{t-l}), depthwise over the
// Hk*D channels, causal, within its sequence (missing tokens count as 0). Column l of the weight multiplies k_{t-l}.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct KeyConvArgs {
  Stream stream;
  DType dtype = DType::f32;                                // f32, bf16, f64
  int64_t batch = 0, tokens = 0, channels = 0, width = 0;  // B, T, Hk*D, W in {3, 5} (any 1..8 accepted)
  const int32_t* cu_seqlens = nullptr;                     // [B+1]
  const void* k = nullptr;                                 // [T, channels]
  const void* weight = nullptr;                            // [channels, W] dtype
  const void* history = nullptr;  // [B, W-1, channels] tokens before each sequence's first (decode), oldest first; or null = zeros
  void* out = nullptr;            // [T, channels]
};

struct KeyConvGradArgs {
  KeyConvArgs forward;         // history must be null
  const void* dout = nullptr;  // [T, channels]
  void* dk = nullptr;          // [T, channels]
  void* dweight = nullptr;     // [channels, W] f32 (f64 for f64), accumulated into
};

void key_conv_forward(const KeyConvArgs& args);
void key_conv_backward(const KeyConvGradArgs& args);
void key_conv_forward_reference(const KeyConvArgs& args);
void key_conv_backward_reference(const KeyConvGradArgs& args);

}  // namespace moba::kernels
