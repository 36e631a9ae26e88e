#include "kernels/moba_gate/moba_gate_lanes_impl.h"

namespace moba::kernels::sse {

const GateLoops gate_loops = Gate32<16, 4>::kLoops;  // 16 registers: 8 sums, 2 queries, broadcast and product

}  // namespace moba::kernels::sse
