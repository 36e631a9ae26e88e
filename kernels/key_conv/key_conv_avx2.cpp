#define MOBA_ISA avx2
#include "kernels/key_conv/key_conv_loops.h"
