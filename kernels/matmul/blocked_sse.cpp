#define MOBA_ISA sse
#include "kernels/matmul/blocked_loops.h"
