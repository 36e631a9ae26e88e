#define MOBA_ISA avx2
#include "kernels/swiglu/swiglu_loops.h"
