#define MOBA_ISA sse
#include "kernels/cross_entropy/cross_entropy_loops.h"
