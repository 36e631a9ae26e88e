#define MOBA_ISA avx512
#include "kernels/rope/rope_loops.h"
