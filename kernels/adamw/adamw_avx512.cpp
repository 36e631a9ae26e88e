#define MOBA_ISA avx512
#include "kernels/adamw/adamw_loops.h"
