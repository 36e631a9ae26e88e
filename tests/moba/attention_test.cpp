// The attention op over the table of cases against the fp64 oracle, through the tape; and what the op keeps and refuses.
#include "src/moba/attention.h"

#include <gtest/gtest.h>

#include "kernels/common/threads.h"
#include "tests/support/gradcheck.h"
#include "tests/support/moba_oracle.h"

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Select;

AttentionConfig config_of(const MobaCase& c, bool naive = false) {
  return {.type = c.type,
          .naive = naive,
          .moba = {.chunk_size = c.S, .topk = c.K, .gate = c.gate, .select = c.select, .seed = 7},
          .window = c.window,
          .softmax_scale = c.scale};
}

struct OpInputs {
  Variable q, k, v;
  Tensor dout;
  PackedSequences sequences;
};

OpInputs op_inputs(const MobaCase& c, const MobaInputs& in, DType dtype) {
  const auto tensor = [&](const std::vector<float>& values, int64_t heads) {
    return Tensor::from<float>(values, {static_cast<int64_t>(values.size()) / (heads * c.D), heads, c.D}).to(dtype);
  };
  const auto offsets = [](const std::vector<int32_t>& cu) { return Tensor::from<int32_t>(cu, {static_cast<int64_t>(cu.size())}); };
  return {Variable(tensor(in.q, c.H), true),
          Variable(tensor(in.k, c.Hk), true),
          Variable(tensor(in.v, c.Hk), true),
          tensor(in.dout, c.H),
          {offsets(in.cu_q), offsets(in.cu_k)}};
}

std::vector<double> as_doubles(const Tensor& t) { return widen(t.raw(), t.dtype(), t.numel()); }

class AttentionOp : public ::testing::TestWithParam<MobaCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionOp, ::testing::ValuesIn(moba_cases()), [](const auto& info) { return info.param.id; });

// The selection is the op's own (tests/kernels compares it with the oracle's); everything after it must follow from it.
TEST_P(AttentionOp, OutputAndGradientsMatchTheOracle) {
  const MobaCase& c = GetParam();
  const MobaInputs in = make_inputs(c, 3);
  for (const bool naive : {false, true}) {
    const OpInputs op = op_inputs(c, in, DType::f32);
    SelectionSlot slot;
    Tensor lse;
    const Variable out = attention(op.q, op.k, op.v, op.sequences, config_of(c, naive), &slot, &lse);
    OracleSelection selection;
    if (c.type == AttentionType::moba) selection = {slot.selected.size(1), slot.selected.size(2), slot.selected.to_vector<int32_t>()};
    const OracleAttention want = oracle_attention(c, in, selection);
    const Tolerance tolerance = tolerance_for(DType::f32, c, in, selection, want);
    EXPECT_CLOSE_RMS(as_doubles(out.value()), want.out, tolerance.out);
    EXPECT_CLOSE_RMS(as_doubles(lse), want.lse, 1e-5);
    backward(out, op.dout);
    EXPECT_CLOSE_RMS(as_doubles(op.q.grad()), want.dq, tolerance.dq);
    EXPECT_CLOSE_RMS(as_doubles(op.k.grad()), want.dk, tolerance.dk);
    EXPECT_CLOSE_RMS(as_doubles(op.v.grad()), want.dv, tolerance.dv);
  }
}

MobaCase small_case() {
  MobaCase c;
  c.id = "small";
  c.k_lens = {23, 0, 9};
  c.H = 4;
  c.D = 6;
  c.S = 4;
  c.K = 3;
  return c;
}

// Every type and gate in fp64 with the selection held.
TEST(AttentionOpGradient, FiniteDifferences) {
  const int threads = num_threads();
  set_num_threads(1);  // thousands of tiny calls
  MobaCase c = small_case();
  const MobaInputs in = make_inputs(c, 3);
  const OpInputs op = op_inputs(c, in, DType::f64);
  c.window = 5;
  const auto check = [&](const AttentionConfig& config) {
    SelectionSlot slot;
    if (config.type == AttentionType::moba) slot.selected = moba_select(op.q.value(), op.k.value(), op.sequences, config);
    return gradcheck([&](auto& v) { return attention(v[0], v[1], v[2], op.sequences, config, &slot); },
                     {op.q.value(), op.k.value(), op.v.value()});
  };
  for (const auto type : {AttentionType::full, AttentionType::window, AttentionType::moba}) {
    c.type = type;
    EXPECT_TRUE(check(config_of(c))) << attention_type_name(type);
  }
  for (const auto gate : {Gate::minmax, Gate::window, Gate::sink, Gate::random, Gate::oracle}) {
    c.gate = gate;
    EXPECT_TRUE(check(config_of(c))) << kernels::gate_name(gate);
  }
  c.gate = Gate::mean;
  c.select = Select::per_group;
  EXPECT_TRUE(check(config_of(c))) << "per_group";
  set_num_threads(threads);
}

TEST(AttentionOp, SlotIsFilledOnceAndThenDecides) {
  const MobaCase c = small_case();
  const OpInputs op = op_inputs(c, make_inputs(c, 3), DType::f32);
  SelectionSlot slot;
  const Tensor routed = attention(op.q, op.k, op.v, op.sequences, config_of(c), &slot).value();
  EXPECT_EQ(slot.selected.shape(), (Shape{32, 4, 3}));
  const Tensor held = slot.selected;
  const Tensor again = attention(op.q, op.k, op.v, op.sequences, config_of(c), &slot).value();
  EXPECT_EQ(slot.selected.raw(), held.raw());
  EXPECT_EQ(again.to_vector<float>(), routed.to_vector<float>());
  // A held selection of own blocks only turns the result into K = 1.
  for (int64_t i = 0; i < held.numel(); ++i)
    if (i % 3 != 0) held.data<int32_t>()[i] = -1;
  AttentionConfig own_block = config_of(c);
  own_block.moba.topk = 1;
  const Tensor want = attention(op.q, op.k, op.v, op.sequences, own_block).value();
  EXPECT_CLOSE_RMS(as_doubles(attention(op.q, op.k, op.v, op.sequences, config_of(c), &slot).value()), as_doubles(want), 1e-6);
  slot.selected = held.rows(0, 31);
  EXPECT_THROW(attention(op.q, op.k, op.v, op.sequences, config_of(c), &slot), Error);
}

// `naive` is the plain kernel itself: same bits as calling it, where the fast kernel's differ.
TEST(AttentionOp, NaiveIsTheReferenceKernel) {
  const MobaCase c = small_case();
  const MobaInputs in = make_inputs(c, 3);
  const OpInputs op = op_inputs(c, in, DType::f32);
  SelectionSlot slot;
  const Tensor naive = attention(op.q, op.k, op.v, op.sequences, config_of(c, true), &slot).value();
  const Tensor fast = attention(op.q, op.k, op.v, op.sequences, config_of(c), &slot).value();
  Tensor want = Tensor::empty(naive.shape(), DType::f32), lse = Tensor::empty({naive.size(0), c.H}, DType::f32);
  kernels::AttentionArgs args;
  args.shape = shape_of(c, in);
  args.type = AttentionType::moba;
  args.softmax_scale = c.softmax_scale();
  args.chunk_size = c.S;
  args.slots = slot.selected.size(2);
  args.selected = slot.selected.data<int32_t>();
  args.q = op.q.value().raw();
  args.k = op.k.value().raw();
  args.v = op.v.value().raw();
  args.out = want.raw();
  args.lse = lse.raw();
  kernels::attention_forward_reference(args);
  EXPECT_TRUE(same_bits("naive", naive.raw(), want.raw(), static_cast<size_t>(want.nbytes())));
  if (kernels::active_isa() == kernels::Isa::reference) return;
  EXPECT_NE(naive.to_vector<float>(), fast.to_vector<float>());
}

// The node keeps the config of its forward: what the caller's config becomes before backward does not matter.
TEST(AttentionOp, BackwardUsesTheForwardsConfig) {
  const MobaCase c = small_case();
  const MobaInputs in = make_inputs(c, 3);
  const auto key_gradient = [&](bool change) {
    const OpInputs op = op_inputs(c, in, DType::f32);
    AttentionConfig config = config_of(c);
    const Variable out = attention(op.q, op.k, op.v, op.sequences, config);
    if (change) config = {.type = AttentionType::full, .moba = {}};
    backward(out, op.dout);
    return op.k.grad().to_vector<float>();
  };
  EXPECT_EQ(key_gradient(true), key_gradient(false));
}

TEST(AttentionOp, NothingIsKeptWithoutGradients) {
  const MobaCase c = small_case();
  const OpInputs op = op_inputs(c, make_inputs(c, 3), DType::f32);
  const NoGrad no_grad;
  const Variable out = attention(op.q, op.k, op.v, op.sequences, config_of(c));
  EXPECT_FALSE(out.requires_grad());
  EXPECT_TRUE(out.is_leaf());
}

// Chunks of a prefill see the keys so far: same blocks, same bits.
TEST(AttentionOp, ChunkedPrefillIsBitwiseOneShot) {
  MobaCase c = small_case();
  c.k_lens = {100};
  c.S = 8;
  const MobaInputs in = make_inputs(c, 3);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const OpInputs op = op_inputs(c, in, dtype);
    SelectionSlot whole_slot;
    const Tensor whole = attention(op.q, op.k, op.v, op.sequences, config_of(c), &whole_slot).value();
    const auto entries = whole_slot.selected.to_vector<int32_t>();
    const std::vector<int64_t> borders = {0, 1, 17, 24, 71, 100};
    for (size_t i = 0; i + 1 < borders.size(); ++i) {
      const int64_t begin = borders[i], end = borders[i + 1];
      SelectionSlot slot;
      const Tensor part = attention(Variable(op.q.value().rows(begin, end)), Variable(op.k.value().rows(0, end)),
                                    Variable(op.v.value().rows(0, end)), one_sequence(end - begin, end), config_of(c), &slot)
                              .value();
      EXPECT_TRUE(same_bits("chunk", part.raw(), whole.rows(begin, end).raw(), static_cast<size_t>(part.nbytes())))
          << begin << " .. " << end;
      const int64_t slots = slot.selected.size(2);
      for (int64_t r = 0; r < slot.selected.numel() / slots; ++r)
        for (int64_t s = 0; s < slots; ++s)
          EXPECT_EQ(slot.selected.data<int32_t>()[r * slots + s], entries[static_cast<size_t>((begin * c.H + r) * 3 + s)]);
    }
  }
}

TEST(AttentionOp, WrongArgumentsNameThemselves) {
  const MobaCase c = small_case();
  const OpInputs op = op_inputs(c, make_inputs(c, 3), DType::f32);
  const auto error_of = [&](const Variable& q, const Variable& k, const Variable& v, PackedSequences sequences, AttentionConfig config) {
    try {
      attention(q, k, v, sequences, config);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const AttentionConfig good = config_of(c);
  EXPECT_EQ(error_of(op.q, op.k, op.v, op.sequences, good), "no error");
  const Variable bf16_q(op.q.value().to(DType::bf16)), flat(op.q.value().reshape({-1, 24}));
  EXPECT_NE(error_of(bf16_q, op.k, op.v, op.sequences, good).find("one dtype, got bf16, f32 and f32"), std::string::npos);
  EXPECT_NE(error_of(flat, op.k, op.v, op.sequences, good).find("q must be [T, H, D], got [32, 24]"), std::string::npos);
  EXPECT_NE(error_of(op.q, op.k, op.q, op.sequences, good).find("v must have k's shape"), std::string::npos);
  AttentionConfig bad = good;
  bad.moba.topk = 0;
  EXPECT_NE(error_of(op.q, op.k, op.v, op.sequences, bad).find("moba_topk must be >= 1"), std::string::npos);
  bad = good;
  bad.moba.chunk_size = -4;
  EXPECT_NE(error_of(op.q, op.k, op.v, op.sequences, bad).find("moba_chunk_size must be >= 1, got -4"), std::string::npos);
  bad = good;
  bad.softmax_scale = -1;
  EXPECT_NE(error_of(op.q, op.k, op.v, op.sequences, bad).find("softmax scale must be finite and > 0"), std::string::npos);
  bad = {.type = AttentionType::window, .moba = {}};
  EXPECT_NE(error_of(op.q, op.k, op.v, op.sequences, bad).find("window must be >= 1"), std::string::npos);
  PackedSequences sequences = one_sequence(31, 31);
  EXPECT_NE(error_of(op.q, op.k, op.v, sequences, good).find("cu_seqlens_q[1] = 31"), std::string::npos);
  sequences = {op.sequences.cu_seqlens_q, one_sequence(32, 32).cu_seqlens_k};
  EXPECT_NE(error_of(op.q, op.k, op.v, sequences, good).find("cu_seqlens_q has 4 entries, cu_seqlens_k 2"), std::string::npos);
}

}  // namespace
}  // namespace moba::test
