// Our own blocked product. Every element of C is one chain of sums over K, cut only every kDepth steps: its bits depend neither
// on threads nor on the other rows and columns, so a token alone gives the bits it gives in a batch.
#pragma once
#include "kernels/matmul/matmul.h"

namespace moba::kernels::detail {

void blocked_product(const MatmulArgs& args);  // validated; f32 or bf16 operands, m, n, k >= 1

}  // namespace moba::kernels::detail
