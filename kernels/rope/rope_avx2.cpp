#define MOBA_ISA avx2
#include "kernels/rope/rope_loops.h"
