#define MOBA_ISA avx512
#include "kernels/matmul/blocked_loops.h"
