#include "src/moba/attention.h"

#include <cmath>

namespace moba {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Select;

struct Geometry {
  int64_t tokens_q, tokens_k, heads, kv_heads, head_dim;
};

void check_cu_seqlens(const char* name, const Tensor& cu) {
  MOBA_CHECK(cu.defined() && cu.dtype() == DType::i32 && cu.dim() == 1 && cu.numel() >= 1 && cu.device().type == DeviceType::cpu,
             "attention: {} must be a CPU i32 tensor [B+1]", name);
}

// Shapes and types of q [T, H, D] and k (and v) [Tk, Hk, D]; ranges and cu_seqlens values are checked by the kernels' validate.
Geometry check_inputs(const Tensor& q, const Tensor& k, const Tensor& v, const PackedSequences& sequences) {
  MOBA_CHECK(q.dim() == 3, "attention: q must be [T, H, D], got {}", to_string(q.shape()));
  MOBA_CHECK(k.dim() == 3, "attention: k must be [Tk, Hk, D], got {}", to_string(k.shape()));
  MOBA_CHECK(v.shape() == k.shape(), "attention: v must have k's shape {}, got {}", to_string(k.shape()), to_string(v.shape()));
  MOBA_CHECK(q.size(2) == k.size(2), "attention: head_dim of q and k must agree, got {} and {}", q.size(2), k.size(2));
  MOBA_CHECK(q.dtype() == k.dtype() && q.dtype() == v.dtype(), "attention: q, k and v must have one dtype, got {}, {} and {}",
             dtype_name(q.dtype()), dtype_name(k.dtype()), dtype_name(v.dtype()));
  MOBA_CHECK(q.device() == k.device() && q.device() == v.device(), "attention: q, k and v must be on one device, got {}, {} and {}",
             to_string(q.device()), to_string(k.device()), to_string(v.device()));
  check_cu_seqlens("cu_seqlens_q", sequences.cu_seqlens_q);
  check_cu_seqlens("cu_seqlens_k", sequences.cu_seqlens_k);
  MOBA_CHECK(sequences.cu_seqlens_q.numel() == sequences.cu_seqlens_k.numel(), "attention: cu_seqlens_q has {} entries, cu_seqlens_k {}",
             sequences.cu_seqlens_q.numel(), sequences.cu_seqlens_k.numel());
  return {q.size(0), k.size(0), q.size(1), k.size(1), q.size(2)};
}

kernels::AttentionShape kernel_shape(const Geometry& g, const PackedSequences& sequences) {
  return {.batch = sequences.batch(),
          .cu_seqlens_q = sequences.cu_seqlens_q.data<int32_t>(),
          .cu_seqlens_k = sequences.cu_seqlens_k.data<int32_t>(),
          .tokens_q = g.tokens_q,
          .tokens_k = g.tokens_k,
          .heads = g.heads,
          .kv_heads = g.kv_heads,
          .head_dim = g.head_dim};
}

double scale_of(const AttentionConfig& config, int64_t head_dim) {
  return config.softmax_scale != 0 ? config.softmax_scale : 1 / std::sqrt(static_cast<double>(head_dim));
}

// Everything the node keeps: inputs and outputs of the kernel as tensors, and the config it ran with.
struct Saved {
  Tensor q, k, v, out, lse, selected;
  PackedSequences sequences;
  AttentionConfig config;
};

kernels::AttentionArgs kernel_args(const Saved& s) {
  const Geometry g{s.q.size(0), s.k.size(0), s.q.size(1), s.k.size(1), s.q.size(2)};
  kernels::AttentionArgs args;
  args.stream = s.q.stream();
  args.shape = kernel_shape(g, s.sequences);
  args.dtype = s.q.dtype();
  args.type = s.config.type;
  args.softmax_scale = scale_of(s.config, g.head_dim);
  args.window = s.config.window;
  if (s.config.type == AttentionType::moba) {
    args.chunk_size = s.config.moba.chunk_size;
    args.slots = s.selected.size(2);
    args.selected_per_group = s.config.moba.select == Select::per_group;
    args.selected = s.selected.data<int32_t>();
  }
  args.q = s.q.raw();
  args.k = s.k.raw();
  args.v = s.v.raw();
  args.out = s.out.raw();
  args.lse = s.lse.raw();
  return args;
}

bool uses_reference(const AttentionConfig& config) { return config.naive && config.type == AttentionType::moba; }

void backward(const Saved& s, const Variable& q, const Variable& k, const Variable& v, const Tensor& grad) {
  kernels::AttentionGradArgs args;
  args.forward = kernel_args(s);
  Tensor dq = Tensor::empty(s.q.shape(), s.q.dtype(), s.q.device());
  Tensor dk = Tensor::empty(s.k.shape(), s.k.dtype(), s.k.device());
  Tensor dv = Tensor::empty(s.v.shape(), s.v.dtype(), s.v.device());
  args.dout = grad.raw();
  args.dq = dq.raw();
  args.dk = dk.raw();
  args.dv = dv.raw();
  uses_reference(s.config) ? kernels::attention_backward_reference(args) : kernels::attention_backward(args);
  // q, k, v are edges here: gradient slots without values.
  if (q.requires_grad()) q.add_grad(std::move(dq));
  if (k.requires_grad()) k.add_grad(std::move(dk));
  if (v.requires_grad()) v.add_grad(std::move(dv));
}

// A held selection must fit the batch it is reused on.
void check_selection(const Tensor& selected, const Geometry& g, const AttentionConfig& config) {
  const int64_t rows = config.moba.select == Select::per_group ? g.kv_heads : g.heads;
  MOBA_CHECK(selected.dtype() == DType::i32 && selected.dim() == 3 && selected.size(0) == g.tokens_q && selected.size(1) == rows,
             "attention: a held selection must be i32 [{}, {}, slots], got {} {}", g.tokens_q, rows, dtype_name(selected.dtype()),
             to_string(selected.shape()));
}

}  // namespace

PackedSequences one_sequence(int64_t tokens_q, int64_t tokens_k) {
  MOBA_CHECK(tokens_q >= 0 && tokens_q <= tokens_k && tokens_k <= INT32_MAX, "a sequence of {} queries and {} keys is not possible",
             tokens_q, tokens_k);
  Tensor k = Tensor::from<int32_t>({0, static_cast<int32_t>(tokens_k)}, {2});
  Tensor q = tokens_q == tokens_k ? k : Tensor::from<int32_t>({0, static_cast<int32_t>(tokens_q)}, {2});
  return {q, k};
}

Tensor moba_select(const Tensor& q, const Tensor& k, const PackedSequences& sequences, const AttentionConfig& config) {
  const Geometry g = check_inputs(q, k, k, sequences);
  kernels::MobaGateArgs args;
  args.stream = q.stream();
  args.shape = kernel_shape(g, sequences);
  kernels::validate(args.shape);
  args.dtype = q.dtype();
  args.chunk_size = config.moba.chunk_size;
  args.topk = config.moba.topk;
  args.gate = config.moba.gate;
  args.select = config.moba.select;
  args.seed = config.moba.seed;
  args.softmax_scale = scale_of(config, g.head_dim);
  args.q = q.raw();
  args.k = k.raw();
  args.slots = kernels::moba_slots(args.shape, args.chunk_size, args.topk);
  Tensor selected =
      Tensor::empty({g.tokens_q, args.select == Select::per_group ? g.kv_heads : g.heads, args.slots}, DType::i32, q.device());
  args.selected = selected.data<int32_t>();
  config.naive ? kernels::moba_gate_reference(args) : kernels::moba_gate(args);
  return selected;
}

Variable attention(const Variable& q, const Variable& k, const Variable& v, const PackedSequences& sequences, const AttentionConfig& config,
                   SelectionSlot* slot, Tensor* lse) {
  validate(config, "attention");
  const Geometry g = check_inputs(q.value(), k.value(), v.value(), sequences);
  Saved saved{
      .q = q.value(), .k = k.value(), .v = v.value(), .out = {}, .lse = {}, .selected = {}, .sequences = sequences, .config = config};
  if (config.type == AttentionType::moba) {
    saved.selected = slot && slot->selected.defined() ? slot->selected : moba_select(saved.q, saved.k, sequences, config);
    check_selection(saved.selected, g, config);
    if (slot) slot->selected = saved.selected;
  }
  saved.out = Tensor::empty(saved.q.shape(), saved.q.dtype(), saved.q.device());
  saved.lse = Tensor::empty({g.tokens_q, g.heads}, saved.q.dtype() == DType::f64 ? DType::f64 : DType::f32, saved.q.device());
  const kernels::AttentionArgs args = kernel_args(saved);
  uses_reference(config) ? kernels::attention_forward_reference(args) : kernels::attention_forward(args);
  if (lse) *lse = saved.lse;
  Tensor out = saved.out;
  return make_output(
      std::move(out), "attention", {q, k, v},
      [saved = std::move(saved), q = q.edge(), k = k.edge(), v = v.edge()](const Tensor& grad) { backward(saved, q, k, v, grad); });
}

}  // namespace moba
