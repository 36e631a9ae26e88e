#define MOBA_ISA sse
#include "kernels/key_conv/key_conv_loops.h"
