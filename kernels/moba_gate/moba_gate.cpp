// Entry points of the gate: which variant runs.
#include "kernels/moba_gate/moba_gate.h"

#include "kernels/common/pick_isa.h"
#include "kernels/common/profile.h"
#include "kernels/moba_gate/moba_gate_cpu.h"

namespace moba::kernels {
namespace {

const GateLoops& active_loops() { return pick_isa(sse::gate_loops, avx2::gate_loops, avx512::gate_loops); }

}  // namespace

void moba_gate(const MobaGateArgs& args) {
  require_cpu("moba_gate", args.stream);
  const AttentionShape& s = args.shape;
  const ProfileScope profile("gate", {.bytes = bytes_of((s.tokens_q * s.heads + s.tokens_k * s.kv_heads) * s.head_dim, args.dtype)});
  // Gates without scores cost a few integers per query in the reference too.
  if (!gate_has_scores(args.gate) || use_reference(args.dtype)) return moba_gate_reference(args);
  if (args.gate == Gate::oracle) return moba_gate_oracle_cpu(args, active_loops());
  moba_gate_cpu(args, active_loops());
}

void moba_centroids(const MobaGateArgs& args, float* centroids) {
  require_cpu("moba_centroids", args.stream);
  const ProfileScope profile("centroids", {.bytes = bytes_of(args.shape.tokens_k * args.shape.kv_heads * args.shape.head_dim, args.dtype)});
  if (use_reference(args.dtype)) return moba_centroids_reference(args, centroids);
  moba_centroids_cpu(args, active_loops(), centroids);
}

}  // namespace moba::kernels
