// The one way to start a CUDA kernel: takes the stream, computes nothing, checks the launch.
// fmt stays out of files compiled by nvcc (its front end rejects fmt 9's compile-time checks), so errors are thrown in errors_cuda.cpp.
#pragma once
#include <cuda_runtime.h>

#include "kernels/common/dispatch.h"

namespace moba::kernels::cuda {

[[noreturn]] void throw_cuda_error(const char* what, cudaError_t status);
[[noreturn]] void throw_float_type_wanted(const char* op, DType dtype);

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw_cuda_error(what, status);
}

template <class... Parameters, class... Arguments>
void launch(const Stream& stream, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments... arguments) {
  check(cudaSetDevice(stream.index), "cudaSetDevice");
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream.handle)>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
}

}  // namespace moba::kernels::cuda
