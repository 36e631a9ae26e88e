#define MOBA_ISA avx2
#include "kernels/elementwise/elementwise_loops.h"
