#define MOBA_ISA avx512
#include "kernels/swiglu/swiglu_loops.h"
