// Attention over packed sequences: dense causal, sliding window and MoBA share one contract and one set of tiles.
//
// For query i of sequence s at key position p = Lk - Lq + i (moba-semantics, docs/moba.md):
//   full    reads keys 0 .. p
//   window  reads keys max(0, p - window + 1) .. p
//   moba    reads the tokens of its selected blocks; the own block (p / chunk_size) only up to p
//   out = softmax(scale * q . k) . v over those keys; lse = log-sum-exp of the scaled scores (natural log)
// Backward (selection is a constant): P = exp(scale*q.k - lse), delta = rowsum(dout * out),
//   dV = P^T dout, dS = P * (dout V^T - delta), dQ = scale * dS K, dK = scale * dS^T Q.
//
// Saved for backward: out, lse, selected. Workspace: O(T) per head; no [T, T] and no [T, N].
// dtypes: f32 and bf16 (products of bf16 values, sums in fp32); f64 by the reference only.
// Determinism: bits do not depend on threads, nor on what a sequence is packed with. A masked key has weight 0 while its values are
// finite and is left out otherwise, so a NaN in one token stays where causality allows.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

// B sequences, packed. Query tokens lie in [T, H, D], key and value tokens in [Tk, Hk, D].
struct AttentionShape {
  int64_t batch = 0;                      // B
  const int32_t* cu_seqlens_q = nullptr;  // [B+1], first 0, non-decreasing, last T
  const int32_t* cu_seqlens_k = nullptr;  // [B+1]; same pointer as cu_seqlens_q in training
  int64_t tokens_q = 0, tokens_k = 0;     // T, Tk
  int64_t heads = 0, kv_heads = 0;        // H, Hk; H % Hk == 0
  int64_t head_dim = 0;                   // D, 1..256
};

enum class AttentionType : uint8_t { full, moba, window };

struct AttentionArgs {
  Stream stream;
  AttentionShape shape;
  DType dtype = DType::f32;
  AttentionType type = AttentionType::full;
  double softmax_scale = 0;           // finite and > 0
  int64_t window = 0;                 // type == window: >= 1
  int64_t chunk_size = 0;             // type == moba: S >= 1
  int64_t slots = 0;                  // row length of `selected`
  bool selected_per_group = false;    // rows of `selected` are kv heads instead of query heads
  const int32_t* selected = nullptr;  // [T, H or Hk, slots] block index in its sequence, own block first, -1 = none
  const void* q = nullptr;            // [T, H, D]
  const void* k = nullptr;            // [Tk, Hk, D]
  const void* v = nullptr;            // [Tk, Hk, D]
  void* out = nullptr;                // [T, H, D]
  void* lse = nullptr;                // [T, H] f32 (f64 when dtype is f64)
};

struct AttentionGradArgs {
  AttentionArgs forward;       // inputs and saved outputs (out, lse are read)
  const void* dout = nullptr;  // [T, H, D]
  void* dq = nullptr;          // [T, H, D]
  void* dk = nullptr;          // [Tk, Hk, D]
  void* dv = nullptr;          // [Tk, Hk, D]
};

// Errors name the argument, its value and what is allowed, before anything is written.
void validate(const AttentionShape& shape);
void validate(const AttentionArgs& args);

void attention_forward(const AttentionArgs& args);  // dispatches on stream.device, active_isa(), dtype
void attention_backward(const AttentionGradArgs& args);

// Plain loops with fp64 accumulation: oracle in tests, `moba_naive`, and the fallback.
void attention_forward_reference(const AttentionArgs& args);
void attention_backward_reference(const AttentionGradArgs& args);

// Bytes of scratch the active variant allocates for these shapes (for --dry-run and benches).
int64_t attention_workspace_bytes(const AttentionArgs& args, bool backward);

// A workspace up to this size stays with the calling thread for its next call: fresh pages are cleared by the system, which takes
// longer than packing short sequences into them.
constexpr int64_t kAttentionWorkspaceKept = int64_t{256} << 20;

// Exact number of unmasked (query, key) pairs over all heads: useful FLOPs are 4*D (forward) and 10*D (backward) per pair.
int64_t attention_pairs(const AttentionArgs& args);

}  // namespace moba::kernels
