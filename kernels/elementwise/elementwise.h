// Element-wise operations on n elements through the portable vector helper.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

void add(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y);                   // y = a + b; y may alias
void accumulate(const Stream& stream, DType dst_dtype, DType src_dtype, int64_t n, const void* src, void* dst);  // dst += src
void multiply(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y);
void scale(const Stream& stream, DType dtype, int64_t n, double factor, const void* x, void* y);
void convert(const Stream& stream, DType from, DType to, int64_t n, const void* x, void* y);  // any pair of f32, bf16, f64
void fill(const Stream& stream, DType dtype, int64_t n, double value, void* y);

}  // namespace moba::kernels
