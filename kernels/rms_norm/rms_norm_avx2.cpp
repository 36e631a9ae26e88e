#define MOBA_ISA avx2
#include "kernels/rms_norm/rms_norm_loops.h"
