// The attention op: gate -> selection -> attention, forward and gradient. See README.md here for the three stages.
#pragma once
#include "src/autograd/variable.h"
#include "src/moba/config.h"

namespace moba {

// Sequences of a packed batch.
struct PackedSequences {
  Tensor cu_seqlens_q;  // i32 [B+1], CPU
  Tensor cu_seqlens_k;  // i32 [B+1], CPU; the same tensor in training
  int64_t batch() const { return cu_seqlens_q.numel() - 1; }
};

// One sequence: the newest tokens_q of tokens_k tokens.
PackedSequences one_sequence(int64_t tokens_q, int64_t tokens_k);

// Holds a layer's selection across activation recomputation: filled by the first forward, reused by the second, so that
// recomputation never routes again.
struct SelectionSlot {
  Tensor selected;  // i32 [T, H or Hk, slots], or undefined
};

// Blocks chosen by every query: i32 [T, H or Hk, min(K, N)], own first, -1 padded.
Tensor moba_select(const Tensor& q, const Tensor& k, const PackedSequences& sequences, const AttentionConfig& config);

// q [T, H, D], k, v [Tk, Hk, D] -> [T, H, D]. config is captured by the node. lse (optional) receives [T, H].
// With type moba: uses slot->selected if defined, else routes and stores it there (slot may be null).
Variable attention(const Variable& q, const Variable& k, const Variable& v, const PackedSequences& sequences, const AttentionConfig& config,
                   SelectionSlot* slot = nullptr, Tensor* lse = nullptr);

}  // namespace moba
