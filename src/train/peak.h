// The machine's measured peak, against which MFU is stated.
#pragma once
#include "kernels/common/types.h"

namespace moba {

// Billions of floating-point operations per second of the best multiply-add loop for this dtype, on all threads; measured once.
double measured_peak_gflops(DType dtype);

}  // namespace moba
