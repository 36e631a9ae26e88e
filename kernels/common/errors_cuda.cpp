// Messages of CUDA errors, compiled by the host compiler.
#include <cuda_runtime_api.h>

#include "kernels/common/check.h"
#include "kernels/common/dispatch.h"

namespace moba::kernels::cuda {

[[noreturn]] void throw_cuda_error(const char* what, cudaError_t status) {
  throw Error(fmt::format("CUDA: {} failed: {} ({})", what, cudaGetErrorString(status), static_cast<int>(status)), ExitCode::io);
}

[[noreturn]] void throw_float_type_wanted(const char* op, DType dtype) {
  throw Error(fmt::format("{}: dtype {} is not a float type", op, dtype_name(dtype)));
}

}  // namespace moba::kernels::cuda
