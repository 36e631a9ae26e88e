// The fast gate on the CPU, in fp32 and bf16: mean and minmax; oracle, which reads every key.
#pragma once
#include "kernels/moba_gate/moba_gate_lanes.h"
#include "kernels/moba_gate/moba_gate_rules.h"

namespace moba::kernels {

void moba_gate_cpu(const MobaGateArgs& args, const GateLoops& loops);
void moba_gate_oracle_cpu(const MobaGateArgs& args, const GateLoops& loops);
void moba_centroids_cpu(const MobaGateArgs& args, const GateLoops& loops, float* centroids);

}  // namespace moba::kernels
