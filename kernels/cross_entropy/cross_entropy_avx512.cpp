#define MOBA_ISA avx512
#include "kernels/cross_entropy/cross_entropy_loops.h"
