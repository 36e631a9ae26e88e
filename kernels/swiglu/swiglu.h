// SwiGLU (arXiv 2002.05202): y = silu(gate) * up, silu(g) = g / (1 + exp(-g)). Element-wise over n elements.
// Backward: dup = dy * silu(gate); dgate = dy * up * (s + gate * s * (1 - s)), s = sigmoid(gate).
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

// gate, up, y: [n] of dtype (f32, bf16, f64)
void swiglu_forward(const Stream& stream, DType dtype, int64_t n, const void* gate, const void* up, void* y);
// dgate, dup may alias dy or each other's inputs only element for element (in place is allowed)
void swiglu_backward(const Stream& stream, DType dtype, int64_t n, const void* gate, const void* up, const void* dy, void* dgate,
                     void* dup);
void swiglu_forward_reference(DType dtype, int64_t n, const void* gate, const void* up, void* y);
void swiglu_backward_reference(DType dtype, int64_t n, const void* gate, const void* up, const void* dy, void* dgate, void* dup);

}  // namespace moba::kernels
