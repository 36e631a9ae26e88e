#define MOBA_ISA avx2
#include "kernels/grad_norm/grad_norm_loops.h"
