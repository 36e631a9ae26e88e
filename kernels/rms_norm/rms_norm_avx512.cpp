#define MOBA_ISA avx512
#include "kernels/rms_norm/rms_norm_loops.h"
