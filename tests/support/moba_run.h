// Runs the attention kernels of the active variant on a case: storage of a dtype, guarded outputs, results as fp64.
#pragma once
#include <vector>

#include "kernels/moba_attention/moba_attention.h"
#include "tests/support/compare.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/moba_cases.h"
#include "tests/support/moba_oracle.h"

namespace moba::test {

// The inputs as a kernel of T reads them, back in fp32 (rounded for bf16).
template <class T>
MobaInputs as_read(const MobaInputs& in) {
  if constexpr (!std::is_same_v<T, bf16>) return in;
  return {in.cu_q, in.cu_k, rounded_to_bf16(in.q), rounded_to_bf16(in.k), rounded_to_bf16(in.v), rounded_to_bf16(in.dout)};
}

template <class T>
std::vector<T> storage_of(const std::vector<float>& x) {
  if constexpr (std::is_same_v<T, bf16>)
    return to_bf16_vector(x);
  else
    return {x.begin(), x.end()};
}

inline kernels::MobaGateArgs gate_args(const MobaCase& c, const MobaInputs& in, DType dtype, const void* q, const void* k) {
  kernels::MobaGateArgs args;
  args.shape = shape_of(c, in);
  args.dtype = dtype;
  args.chunk_size = c.S;
  args.topk = c.K;
  args.gate = c.gate;
  args.select = c.select;
  args.seed = 7;
  args.softmax_scale = c.softmax_scale();
  args.q = q;
  args.k = k;
  args.slots = kernels::moba_slots(args.shape, c.S, c.K);
  return args;
}

// Selection by the gate of the active variant.
template <class T>
OracleSelection run_gate(const MobaCase& c, const MobaInputs& in) {
  const std::vector<T> q = storage_of<T>(in.q), k = storage_of<T>(in.k);
  kernels::MobaGateArgs args = gate_args(c, in, DTypeOf<T>::value, q.data(), k.data());
  OracleSelection result{c.select == kernels::Select::per_group ? c.Hk : c.H, args.slots, {}};
  GuardedBuffer<int32_t> selected(in.tokens_q() * result.rows * result.slots);
  args.selected = selected.data();
  kernels::moba_gate(args);
  EXPECT_TRUE(selected.guards_intact());
  result.selected.assign(selected.data(), selected.data() + selected.size());
  return result;
}

// Attention of one case with T as storage type; the outputs live as long as this does.
template <class T>
class AttentionRun {
 public:
  using Lse = std::conditional_t<std::is_same_v<T, double>, double, float>;

  AttentionRun(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection)
      : q_(storage_of<T>(in.q)),
        k_(storage_of<T>(in.k)),
        v_(storage_of<T>(in.v)),
        dout_(storage_of<T>(in.dout)),
        out(std::ssize(in.q)),
        lse(in.tokens_q() * c.H),
        dq(std::ssize(in.q)),
        dk(std::ssize(in.k)),
        dv(std::ssize(in.k)) {
    kernels::AttentionArgs& args = grad_.forward;
    args.shape = shape_of(c, in);
    args.dtype = DTypeOf<T>::value;
    args.type = c.type;
    args.softmax_scale = c.softmax_scale();
    args.window = c.window;
    args.chunk_size = c.S;
    args.slots = selection.slots;
    args.selected_per_group = c.select == kernels::Select::per_group;
    args.selected = selection.selected.data();
    args.q = q_.data();
    args.k = k_.data();
    args.v = v_.data();
    args.out = out.data();
    args.lse = lse.data();
    grad_.dout = dout_.data();
    grad_.dq = dq.data();
    grad_.dk = dk.data();
    grad_.dv = dv.data();
  }
  AttentionRun(const AttentionRun&) = delete;

  kernels::AttentionGradArgs& args() { return grad_; }
  void forward() { kernels::attention_forward(grad_.forward); }
  void backward() { kernels::attention_backward(grad_); }
  bool guards_intact() const {
    return out.guards_intact() && lse.guards_intact() && dq.guards_intact() && dk.guards_intact() && dv.guards_intact();
  }

 private:
  std::vector<T> q_, k_, v_, dout_;
  kernels::AttentionGradArgs grad_;

 public:
  GuardedBuffer<T> out;
  GuardedBuffer<Lse> lse;
  GuardedBuffer<T> dq, dk, dv;
};

template <class T>
std::vector<double> widen(const GuardedBuffer<T>& buffer) {
  return widen(buffer.data(), buffer.size());
}

}  // namespace moba::test
