#define MOBA_ISA avx2
#include "kernels/adamw/adamw_loops.h"
