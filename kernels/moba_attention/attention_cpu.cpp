#include "kernels/moba_attention/attention_cpu.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/moba_attention/attention_cpu_plan.h"

namespace moba::kernels {
namespace {

using namespace attention_cpu;

const KernelTable& active_table(DType dtype) {
  switch (active_isa()) {
    case Isa::sse: return table_sse(dtype);
    case Isa::avx2: return table_avx2(dtype);
    case Isa::avx512: return table_avx512(dtype);
    case Isa::avx512_bf16: return table_avx512_bf16(dtype);
    case Isa::reference: break;
  }
  throw Error("fast CPU attention called while the kernel variant is `reference`");
}

// Address of element i of a tensor.
const void* element(const void* base, DType dtype, int64_t i) {
  return base ? static_cast<const char*>(base) + i * static_cast<int64_t>(dtype_size(dtype)) : nullptr;
}
void* element(void* base, DType dtype, int64_t i) { return const_cast<void*>(element(static_cast<const void*>(base), dtype, i)); }

class Call {
 public:
  Call(const AttentionArgs& args, const KernelTable& table, bool backward)
      : args_(args), table_(table), plan_(make_plan(args, table, backward)), workspace_(plan_.at.bytes) {}

  void pack() {
    std::vector<std::pair<int32_t, int64_t>> panels;
    for (size_t b = 0; b < plan_.sequences.size(); ++b)
      for (int64_t p = 0; p * kPanelKeys < plan_.sequences[b].k_count; ++p) panels.emplace_back(static_cast<int32_t>(b), p);
    parallel_items(static_cast<int64_t>(panels.size()) * plan_.kv_heads, [&](int64_t item, int) {
      const auto [b, panel] = panels[static_cast<size_t>(item / plan_.kv_heads)];
      const int64_t kv = item % plan_.kv_heads;
      const Sequence& s = plan_.sequences[static_cast<size_t>(b)];
      PackJob job;
      job.head_dim = plan_.head_dim;
      job.keys = s.k_count;
      job.token_stride = plan_.kv_heads * plan_.head_dim;
      job.panel = panel;
      job.backward = plan_.backward;
      job.k = element(args_.k, args_.dtype, (s.k_begin * plan_.kv_heads + kv) * plan_.head_dim);
      job.v = element(args_.v, args_.dtype, (s.k_begin * plan_.kv_heads + kv) * plan_.head_dim);
      job.packed = packed(s, kv);
      table_.pack(job);
    });
  }

  int64_t items() const { return static_cast<int64_t>(plan_.items.size()); }

  ChunkJob chunk_job(int64_t item) const {
    const auto [sequence, kv, chunk] = plan_.items[static_cast<size_t>(item)];
    const Sequence& s = plan_.sequences[static_cast<size_t>(sequence)];
    const int64_t heads = args_.shape.heads;
    ChunkJob job;
    job.type = args_.type;
    job.window = std::min(args_.window, s.k_count);
    job.chunk_size = args_.chunk_size;
    job.slots = args_.type == AttentionType::moba ? args_.slots : 0;
    job.head_dim = plan_.head_dim;
    job.group = plan_.group;
    job.q_begin = chunk * s.chunk_queries;
    job.q_end = std::min(s.q_count, job.q_begin + s.chunk_queries);
    job.position = s.k_count - s.q_count + job.q_begin;
    job.scale = static_cast<float>(args_.softmax_scale);
    job.token_stride = heads * plan_.head_dim;
    job.lse_stride = heads;
    const int64_t token = s.q_begin + job.q_begin, head = kv * plan_.group;
    const int64_t first = (token * heads + head) * plan_.head_dim;
    job.q = element(args_.q, args_.dtype, first);
    job.out = element(args_.out, args_.dtype, first);
    job.lse = static_cast<float*>(args_.lse) + token * heads + head;
    if (args_.type == AttentionType::moba) {
      const int64_t per_token = args_.selected_per_group ? plan_.kv_heads : heads;
      job.selected_stride = per_token * args_.slots;
      job.selected_head_stride = args_.selected_per_group ? 0 : args_.slots;
      job.selected = args_.selected + token * job.selected_stride + (args_.selected_per_group ? kv : head) * args_.slots;
    }
    job.packed = packed(s, kv);
    return job;
  }

  // The chunk's place in the order of sums into dk and dv: after the next chunk of its sequence, which starts earlier.
  ChunkJob backward_job(int64_t item, const AttentionGradArgs& args) const {
    ChunkJob job = chunk_job(item);
    const auto [sequence, kv, chunk] = plan_.items[static_cast<size_t>(item)];
    const Sequence& s = plan_.sequences[static_cast<size_t>(sequence)];
    const int64_t first = ((s.q_begin + job.q_begin) * args_.shape.heads + kv * plan_.group) * plan_.head_dim;
    job.dout = element(args.dout, args_.dtype, first);
    job.dq = element(args.dq, args_.dtype, first);
    job.dk = key_sums(plan_.at.dk, s, kv);
    job.dv = key_sums(plan_.at.dv, s, kv);
    job.progress = progress(s, kv, chunk);
    if (chunk + 1 < s.chunks) job.progress_before = progress(s, kv, chunk + 1);
    return job;
  }

  void clear_sums() {
    parallel_for(plan_.kv_heads * plan_.padded_keys, 1024, [&](int64_t begin, int64_t end) {
      const auto bytes = static_cast<size_t>((end - begin) * plan_.padded_dim) * sizeof(float);
      std::memset(workspace_.at<float>(plan_.at.dk) + begin * plan_.padded_dim, 0, bytes);
      std::memset(workspace_.at<float>(plan_.at.dv) + begin * plan_.padded_dim, 0, bytes);
    });
    for (const Sequence& s : plan_.sequences)
      for (int64_t i = 0; i < plan_.kv_heads * s.chunks; ++i) *progress(s, i / s.chunks, i % s.chunks) = 0;
  }

  // fp32 sums -> dk (scaled) and dv of the tensor type.
  template <class E>
  void write_key_gradients(const AttentionGradArgs& args) const {
    const double scale = table_.shape.pair == 1 ? 0.693147180559945 : args_.softmax_scale;  // fp32 queries carried scale * log2(e)
    for (const Sequence& s : plan_.sequences) {
      parallel_for(s.k_count, 256, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t kv = 0; kv < plan_.kv_heads; ++kv) {
            const int64_t to = ((s.k_begin + t) * plan_.kv_heads + kv) * plan_.head_dim, from = t * plan_.padded_dim;
            write_row(key_sums(plan_.at.dk, s, kv) + from, static_cast<float>(scale), static_cast<E*>(args.dk) + to);
            write_row(key_sums(plan_.at.dv, s, kv) + from, 1.0f, static_cast<E*>(args.dv) + to);
          }
        }
      });
    }
  }

  void* scratch(int thread) const { return workspace_.at<char>(plan_.at.scratch + thread * plan_.at.scratch_each); }

 private:
  float* key_sums(int64_t at, const Sequence& s, int64_t kv) const {
    return workspace_.at<float>(at) + (kv * plan_.padded_keys + s.padded_keys_before) * plan_.padded_dim;
  }
  int64_t* progress(const Sequence& s, int64_t kv, int64_t chunk) const {
    return workspace_.at<int64_t>(plan_.at.progress + 64 * (plan_.kv_heads * s.chunks_before + kv * s.chunks + chunk));
  }
  void write_row(const float* from, float factor, float* to) const {
    for (int64_t d = 0; d < plan_.head_dim; ++d) to[d] = from[d] * factor;
  }
  void write_row(const float* from, float factor, bf16* to) const {
    for (int64_t d = 0; d < plan_.head_dim; ++d) to[d] = to_bf16(from[d] * factor);
  }

  PackedHead packed(const Sequence& s, int64_t kv) const {
    const int64_t key = kv * plan_.padded_keys + s.padded_keys_before;
    const int64_t columns = key * plan_.depth_words, rows = key / plan_.tile.pair * plan_.padded_dim;
    PackedHead head;
    head.keys = s.k_count;
    head.k_columns = workspace_.at<float>(plan_.at.k_columns) + columns;
    head.v_rows = workspace_.at<float>(plan_.at.v_rows) + rows;
    if (plan_.backward) {
      head.v_columns = workspace_.at<float>(plan_.at.v_columns) + columns;
      head.k_rows = workspace_.at<float>(plan_.at.k_rows) + rows;
    }
    head.nonfinite = workspace_.at<uint8_t>(plan_.at.nonfinite) + kv * plan_.panels + s.panels_before;
    return head;
  }

  const AttentionArgs& args_;
  const KernelTable& table_;
  Plan plan_;
  Workspace workspace_;
};

}  // namespace

void attention_forward_cpu(const AttentionArgs& args, const KernelTable& table) {
  Call call(args, table, false);
  call.pack();
  parallel_items(call.items(), [&](int64_t item, int thread) { table.forward(call.chunk_job(item), call.scratch(thread)); });
}

void attention_forward_cpu(const AttentionArgs& args) { attention_forward_cpu(args, active_table(args.dtype)); }

void attention_backward_cpu(const AttentionGradArgs& args, const KernelTable& table) {
  Call call(args.forward, table, true);
  call.pack();
  call.clear_sums();
  parallel_items(call.items(), [&](int64_t item, int thread) { table.backward(call.backward_job(item, args), call.scratch(thread)); });
  if (args.forward.dtype == DType::bf16)
    call.write_key_gradients<bf16>(args);
  else
    call.write_key_gradients<float>(args);
}

void attention_backward_cpu(const AttentionGradArgs& args) { attention_backward_cpu(args, active_table(args.forward.dtype)); }

int64_t attention_workspace_bytes_cpu(const AttentionArgs& args, bool backward) {
  return make_plan(args, active_table(args.dtype), backward).at.bytes;
}

}  // namespace moba::kernels
