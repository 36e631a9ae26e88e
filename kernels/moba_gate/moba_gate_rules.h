// Rules of the gate that reference and fast code share: argument checks, the sequences of a batch, and the gates without
// scores, which need nothing but positions.
#pragma once
#include "kernels/moba_gate/moba_gate.h"

namespace moba::kernels {

void validate(const MobaGateArgs& args);

constexpr bool gate_has_scores(Gate gate) { return gate == Gate::mean || gate == Gate::minmax || gate == Gate::oracle; }

struct GateSequence {
  int64_t q_begin, q_len;                           // in [T]
  int64_t k_begin, k_len;                           // in [Tk]
  int64_t history;                                  // blocks that can be history: max(N - 1, 0)
  int64_t offset() const { return k_len - q_len; }  // position of the first query
};

GateSequence gate_sequence(const MobaGateArgs& args, int64_t s);

// Rows of `selected` per token: query heads, or kv heads with per_group.
inline int64_t gate_rows(const MobaGateArgs& args) { return args.select == Select::per_group ? args.shape.kv_heads : args.shape.heads; }
// Query heads that share one row.
inline int64_t heads_per_row(const MobaGateArgs& args) { return args.shape.heads / gate_rows(args); }
inline int64_t queries_per_kv_head(const MobaGateArgs& args) { return args.shape.heads / args.shape.kv_heads; }

// Fills the row of the query at position p for gate window, sink or random: own first, then descending index.
void select_unscored(const MobaGateArgs& args, int64_t p, int64_t row_index, int32_t* row);

}  // namespace moba::kernels
