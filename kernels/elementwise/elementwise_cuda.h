// CUDA side of elementwise.h. A build without CUDA links elementwise_no_cuda.cpp, whose functions throw.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels::cuda {

void add(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y);
void convert(const Stream& stream, DType from, DType to, int64_t n, const void* x, void* y);
void fill(const Stream& stream, DType dtype, int64_t n, double value, void* y);

}  // namespace moba::kernels::cuda
