#define MOBA_ISA sse
#include "kernels/rope/rope_loops.h"
