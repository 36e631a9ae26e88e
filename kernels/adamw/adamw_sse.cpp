#define MOBA_ISA sse
#include "kernels/adamw/adamw_loops.h"
