#define MOBA_ISA sse
#include "kernels/swiglu/swiglu_loops.h"
