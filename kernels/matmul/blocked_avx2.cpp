#define MOBA_ISA avx2
#include "kernels/matmul/blocked_loops.h"
