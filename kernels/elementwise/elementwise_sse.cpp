#define MOBA_ISA sse
#include "kernels/elementwise/elementwise_loops.h"
