#define MOBA_ISA avx512
#include "kernels/elementwise/elementwise_loops.h"
