// Sum of squares of a gradient in fp64, over fixed pieces added in order (bits do not depend on threads). NaN/Inf propagate,
// so one pass gives both the norm and the non-finite test.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

double sum_of_squares(const Stream& stream, DType dtype, int64_t n, const void* x);  // f32, f64, bf16
double sum_of_squares_reference(DType dtype, int64_t n, const void* x);

}  // namespace moba::kernels
