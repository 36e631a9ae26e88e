#define MOBA_ISA sse
#include "kernels/grad_norm/grad_norm_loops.h"
