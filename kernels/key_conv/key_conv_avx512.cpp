#define MOBA_ISA avx512
#include "kernels/key_conv/key_conv_loops.h"
