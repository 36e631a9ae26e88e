// Products by the CPU's own bf16 instructions, through oneDNN (matmul_onednn.cpp; not in builds without it).
#pragma once
#include "kernels/matmul/matmul.h"

namespace moba::kernels::detail {

void native_bf16_product(const MatmulArgs& args);  // validated; bf16 operands, m, n, k >= 1; needs has_bf16_products()

}  // namespace moba::kernels::detail
