// Fast CPU attention: dense causal, sliding window and MoBA over one set of tiles, f32 and bf16 tensors.
//
// Work is owned by chunks of consecutive queries of one (sequence, kv head): all query heads of the group share the packed keys
// and values, O rows stay in the chunk's fp32 buffer, key panels ascend. Backward recomputes P from lse; dQ rows belong to their
// chunk, dK and dV of a panel are added by the chunks in a fixed order. So no bit depends on threads, packing or neighbours.
#pragma once
#include "kernels/moba_attention/attention_cpu_kernels.h"

namespace moba::kernels {

// By active_isa(), which must not be `reference`; dtype f32 or bf16; args already validated.
void attention_forward_cpu(const AttentionArgs& args);
void attention_backward_cpu(const AttentionGradArgs& args);
int64_t attention_workspace_bytes_cpu(const AttentionArgs& args, bool backward);

// The same with a given variant (tests run geometries this machine has no instructions for, emulated).
void attention_forward_cpu(const AttentionArgs& args, const attention_cpu::KernelTable& table);
void attention_backward_cpu(const AttentionGradArgs& args, const attention_cpu::KernelTable& table);

}  // namespace moba::kernels
