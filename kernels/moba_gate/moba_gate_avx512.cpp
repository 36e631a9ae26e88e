#include "kernels/moba_gate/moba_gate_lanes_impl.h"

namespace moba::kernels::avx512 {

const GateLoops gate_loops = Gate32<64, 12>::kLoops;  // 32 registers: 24 sums, 2 queries, broadcasts

}  // namespace moba::kernels::avx512
