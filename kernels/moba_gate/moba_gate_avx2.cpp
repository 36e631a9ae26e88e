#include "kernels/moba_gate/moba_gate_lanes_impl.h"

namespace moba::kernels::avx2 {

const GateLoops gate_loops = Gate32<32, 6>::kLoops;  // 16 registers: 12 sums, 2 queries, 1 broadcast

}  // namespace moba::kernels::avx2
