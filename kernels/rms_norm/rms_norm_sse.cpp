#define MOBA_ISA sse
#include "kernels/rms_norm/rms_norm_loops.h"
