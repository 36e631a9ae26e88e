#define MOBA_ISA avx2
#include "kernels/cross_entropy/cross_entropy_loops.h"
