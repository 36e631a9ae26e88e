#include "kernels/matmul/matmul_cuda.h"

namespace moba::kernels::cuda {

void matmul(const MatmulArgs& args) { throw_no_device_kernel("matmul", args.stream); }

}  // namespace moba::kernels::cuda
