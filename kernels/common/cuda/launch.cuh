// The one way to start a CUDA kernel: takes the stream, computes nothing, checks the launch.
#pragma once
#include <cuda_runtime.h>

#include "kernels/common/check.h"
#include "kernels/common/dispatch.h"

namespace moba::kernels::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(fmt::format("CUDA: {} failed: {} ({})", what, cudaGetErrorString(status), static_cast<int>(status)), ExitCode::io);
}

template <class... Parameters, class... Arguments>
void launch(const Stream& stream, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments... arguments) {
  check(cudaSetDevice(stream.index), "cudaSetDevice");
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream.handle)>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
}

}  // namespace moba::kernels::cuda
