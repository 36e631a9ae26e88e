// What every variant shares: argument checks, pair counts, and the choice of the variant.
#include "kernels/moba_attention/moba_attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/moba_attention/attention_cpu.h"

namespace moba::kernels {
namespace {

constexpr int64_t kMaxHeadDim = 256;

void check_cu_seqlens(const char* name, const int32_t* cu, int64_t batch, int64_t tokens, const char* tokens_name) {
  MOBA_CHECK(cu != nullptr, "{} is null; allowed: batch + 1 = {} offsets", name, batch + 1);
  MOBA_CHECK(cu[0] == 0, "{}[0] = {}; the first offset must be 0", name, cu[0]);
  for (int64_t s = 0; s < batch; ++s)
    MOBA_CHECK(cu[s + 1] >= cu[s], "{}[{}] = {} is below {}[{}] = {}; offsets must not decrease", name, s + 1, cu[s + 1], name, s, cu[s]);
  MOBA_CHECK(cu[batch] == tokens, "{}[{}] = {}; the last offset must be {} = {}", name, batch, cu[batch], tokens_name, tokens);
}

void check_pointer(const char* name, const void* pointer, int64_t elements) {
  MOBA_CHECK(pointer != nullptr || elements == 0, "{} is null; allowed: a buffer of {} elements", name, elements);
}

// Every row of `selected`: own block first, then -1 or blocks before it.
void check_selected(const AttentionArgs& args) {
  const AttentionShape& shape = args.shape;
  const int64_t rows = args.selected_per_group ? shape.kv_heads : shape.heads;
  for (int64_t s = 0; s < shape.batch; ++s) {
    const int64_t q_begin = shape.cu_seqlens_q[s], q_len = shape.cu_seqlens_q[s + 1] - q_begin;
    const int64_t offset = shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s] - q_len;
    parallel_for(q_len, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t own = (offset + i) / args.chunk_size;
        for (int64_t h = 0; h < rows; ++h) {
          const int32_t* row = args.selected + ((q_begin + i) * rows + h) * args.slots;
          bool good = row[0] == own;
          for (int64_t j = 1; j < args.slots; ++j) good = good && row[j] >= -1 && row[j] < own;
          MOBA_CHECK(good, "selected[{}, {}] is not a selection: slot 0 must be the own block {}, the others -1 or 0 .. {}", q_begin + i, h,
                     own, own - 1);
        }
      }
    });
  }
}

void validate(const AttentionGradArgs& args) {
  validate(args.forward);
  const AttentionShape& shape = args.forward.shape;
  const int64_t q_elements = shape.tokens_q * shape.heads * shape.head_dim;
  const int64_t k_elements = shape.tokens_k * shape.kv_heads * shape.head_dim;
  check_pointer("dout", args.dout, q_elements);
  check_pointer("dq", args.dq, q_elements);
  check_pointer("dk", args.dk, k_elements);
  check_pointer("dv", args.dv, k_elements);
}

// Two products of D multiply-adds a pair forward, five backward; every tensor read or written once.
KernelWork work_of(const AttentionArgs& args, bool backward) {
  if (!profiling()) return {};  // counting pairs takes time
  const AttentionShape& s = args.shape;
  const int64_t q = s.tokens_q * s.heads * s.head_dim, k = s.tokens_k * s.kv_heads * s.head_dim;
  return {(backward ? 10.0 : 4.0) * static_cast<double>(s.head_dim) * static_cast<double>(attention_pairs(args)),
          backward ? bytes_of(4 * q + 4 * k, args.dtype) : bytes_of(2 * q + 2 * k, args.dtype)};
}

bool runs_fast(DType dtype) { return dtype != DType::f64 && active_isa() != Isa::reference; }

}  // namespace

void validate(const AttentionShape& shape) {
  MOBA_CHECK(shape.batch >= 0, "batch = {}; allowed: 0 or more", shape.batch);
  MOBA_CHECK(shape.tokens_q >= 0, "tokens_q = {}; allowed: 0 or more", shape.tokens_q);
  MOBA_CHECK(shape.tokens_k >= 0, "tokens_k = {}; allowed: 0 or more", shape.tokens_k);
  MOBA_CHECK(shape.heads >= 1, "heads = {}; allowed: 1 or more", shape.heads);
  MOBA_CHECK(shape.kv_heads >= 1, "kv_heads = {}; allowed: 1 or more", shape.kv_heads);
  MOBA_CHECK(shape.heads % shape.kv_heads == 0, "heads = {} is not a multiple of kv_heads = {}", shape.heads, shape.kv_heads);
  MOBA_CHECK(shape.head_dim >= 1 && shape.head_dim <= kMaxHeadDim, "head_dim = {}; allowed: 1 .. {}", shape.head_dim, kMaxHeadDim);
  check_cu_seqlens("cu_seqlens_q", shape.cu_seqlens_q, shape.batch, shape.tokens_q, "tokens_q");
  check_cu_seqlens("cu_seqlens_k", shape.cu_seqlens_k, shape.batch, shape.tokens_k, "tokens_k");
  for (int64_t s = 0; s < shape.batch; ++s) {
    const int64_t q_len = shape.cu_seqlens_q[s + 1] - shape.cu_seqlens_q[s];
    const int64_t k_len = shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s];
    MOBA_CHECK(q_len <= k_len,
               "cu_seqlens_q: sequence {} has {} queries but cu_seqlens_k gives it {} keys; allowed: at most as many queries as keys", s,
               q_len, k_len);
  }
}

void validate(const AttentionArgs& args) {
  validate(args.shape);
  const AttentionShape& shape = args.shape;
  MOBA_CHECK(args.dtype == DType::f32 || args.dtype == DType::bf16 || args.dtype == DType::f64, "dtype = {}; allowed: f32, bf16, f64",
             dtype_name(args.dtype));
  MOBA_CHECK(std::isfinite(args.softmax_scale) && args.softmax_scale > 0, "softmax_scale = {}; allowed: finite and above 0",
             args.softmax_scale);
  const int64_t q_elements = shape.tokens_q * shape.heads * shape.head_dim;
  const int64_t k_elements = shape.tokens_k * shape.kv_heads * shape.head_dim;
  check_pointer("q", args.q, q_elements);
  check_pointer("k", args.k, k_elements);
  check_pointer("v", args.v, k_elements);
  check_pointer("out", args.out, q_elements);
  check_pointer("lse", args.lse, shape.tokens_q * shape.heads);
  if (args.type == AttentionType::window) MOBA_CHECK(args.window >= 1, "window = {}; allowed: 1 or more", args.window);
  if (args.type != AttentionType::moba) return;
  MOBA_CHECK(args.chunk_size >= 1, "chunk_size = {}; allowed: 1 or more", args.chunk_size);
  MOBA_CHECK(args.slots >= 1, "slots = {}; allowed: 1 or more", args.slots);
  check_pointer("selected", args.selected, shape.tokens_q * (args.selected_per_group ? shape.kv_heads : shape.heads) * args.slots);
  if (args.stream.device == DeviceType::cpu) check_selected(args);
}

void attention_forward(const AttentionArgs& args) {
  if (args.stream.device != DeviceType::cpu) throw_no_device_kernel("attention", args.stream);
  if (!runs_fast(args.dtype)) return attention_forward_reference(args);
  validate(args);
  const ProfileScope profile("attention forward", work_of(args, false));
  attention_forward_cpu(args);
}

void attention_backward(const AttentionGradArgs& args) {
  if (args.forward.stream.device != DeviceType::cpu) throw_no_device_kernel("attention", args.forward.stream);
  validate(args);
  const ProfileScope profile("attention backward", work_of(args.forward, true));
  if (runs_fast(args.forward.dtype))
    attention_backward_cpu(args);
  else
    attention_backward_reference(args);
}

// The reference's own: scores of one row in forward, dK and dV of one (sequence, kv head) in fp64 in backward, per thread.
int64_t attention_workspace_bytes(const AttentionArgs& args, bool backward) {
  if (runs_fast(args.dtype)) return attention_workspace_bytes_cpu(args, backward);
  const AttentionShape& shape = args.shape;
  int64_t longest = 0;
  for (int64_t s = 0; s < shape.batch; ++s) longest = std::max<int64_t>(longest, shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s]);
  const int64_t per_thread = backward ? 2 * longest * shape.head_dim : longest;
  return num_threads() * per_thread * static_cast<int64_t>(sizeof(double));
}

int64_t attention_pairs(const AttentionArgs& args) {
  const AttentionShape& shape = args.shape;
  const int64_t rows = args.selected_per_group ? shape.kv_heads : shape.heads;
  int64_t pairs = 0;
  for (int64_t s = 0; s < shape.batch; ++s) {
    const int64_t q_begin = shape.cu_seqlens_q[s], q_len = shape.cu_seqlens_q[s + 1] - q_begin;
    const int64_t offset = shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s] - q_len;
    for (int64_t i = 0; i < q_len; ++i) {
      const int64_t p = offset + i;
      if (args.type == AttentionType::full) pairs += shape.heads * (p + 1);
      if (args.type == AttentionType::window) pairs += shape.heads * std::min(p + 1, args.window);
      if (args.type != AttentionType::moba) continue;
      const int32_t* row = args.selected + (q_begin + i) * rows * args.slots;
      int64_t history = 0;
      for (int64_t h = 0; h < rows; ++h)
        for (int64_t j = 1; j < args.slots; ++j) history += row[h * args.slots + j] >= 0;
      pairs += shape.heads * (p % args.chunk_size + 1) + shape.heads / rows * history * args.chunk_size;
    }
  }
  return pairs;
}

}  // namespace moba::kernels
