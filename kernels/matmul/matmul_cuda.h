// CUDA side of matmul.h, on cuBLASLt opened at run time. A build without CUDA links matmul_no_cuda.cpp, which throws.
#pragma once
#include "kernels/matmul/matmul.h"

namespace moba::kernels::cuda {

void matmul(const MatmulArgs& args);  // f32 and bf16 operands; f32 or bf16 result

}  // namespace moba::kernels::cuda
