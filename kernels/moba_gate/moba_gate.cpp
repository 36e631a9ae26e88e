// Entry points of the gate: which variant runs.
#include "kernels/moba_gate/moba_gate.h"

#include "kernels/common/pick_isa.h"
#include "kernels/moba_gate/moba_gate_rules.h"

namespace moba::kernels {

void moba_gate(const MobaGateArgs& args) {
  require_cpu("moba_gate", args.stream);
  moba_gate_reference(args);
}

void moba_centroids(const MobaGateArgs& args, float* centroids) {
  require_cpu("moba_centroids", args.stream);
  moba_centroids_reference(args, centroids);
}

}  // namespace moba::kernels
