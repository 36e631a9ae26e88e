// What holds bit for bit, whatever the variant: causality, independence of threads and of neighbours in the batch, chunked
// prefill; and the relations between attention types that need no oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/threads.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Isa;

// Gate, forward and backward of one case, every result kept.
template <class T>
struct Whole {
  OracleSelection selection;
  AttentionRun<T> run;

  Whole(const MobaCase& c, const MobaInputs& in)
      : selection(c.type == AttentionType::moba ? run_gate<T>(c, in) : OracleSelection{}), run(c, in, selection) {
    run.forward();
    run.backward();
  }
};

// Elements [from, from + count) of rows of `width` of two buffers.
template <class T>
::testing::AssertionResult same_rows(const std::string& name, const GuardedBuffer<T>& a, int64_t a_row, const GuardedBuffer<T>& b,
                                     int64_t b_row, int64_t rows, int64_t width) {
  return same_bits(name, a.data() + a_row * width, b.data() + b_row * width, static_cast<size_t>(rows * width) * sizeof(T));
}

template <class T>
void expect_same(const AttentionRun<T>& a, const AttentionRun<T>& b) {
  EXPECT_TRUE(same_bits("out", a.out.data(), b.out.data(), a.out.size_bytes()));
  EXPECT_TRUE(same_bits("lse", a.lse.data(), b.lse.data(), a.lse.size_bytes()));
  EXPECT_TRUE(same_bits("dq", a.dq.data(), b.dq.data(), a.dq.size_bytes()));
  EXPECT_TRUE(same_bits("dk", a.dk.data(), b.dk.data(), a.dk.size_bytes()));
  EXPECT_TRUE(same_bits("dv", a.dv.data(), b.dv.data(), a.dv.size_bytes()));
}

// The part of `in` that belongs to sequence s, its queries being [q_from, q_to) and its keys [0, k_to) of the sequence.
MobaInputs part_of(const MobaCase& c, const MobaInputs& in, int64_t s, int64_t q_from, int64_t q_to, int64_t k_to) {
  const int64_t q0 = in.cu_q[static_cast<size_t>(s)], k0 = in.cu_k[static_cast<size_t>(s)];
  const auto slice = [](const std::vector<float>& x, int64_t begin, int64_t end, int64_t width) {
    return std::vector<float>(x.begin() + begin * width, x.begin() + end * width);
  };
  return {{0, static_cast<int32_t>(q_to - q_from)},       {0, static_cast<int32_t>(k_to)},
          slice(in.q, q0 + q_from, q0 + q_to, c.H * c.D), slice(in.k, k0, k0 + k_to, c.Hk * c.D),
          slice(in.v, k0, k0 + k_to, c.Hk * c.D),         slice(in.dout, q0 + q_from, q0 + q_to, c.H * c.D)};
}

std::vector<MobaCase> property_cases() {
  const MobaCase base{.id = "moba", .k_lens = {0, 50, 333, 17}, .H = 2, .Hk = 1, .D = 24, .S = 16, .K = 3};
  std::vector<MobaCase> cases = {base};
  const auto add = [&](const char* id, auto change) {
    cases.push_back(base);
    cases.back().id = id;
    change(cases.back());
  };
  add("moba_odd", [](MobaCase& c) { c.S = 37, c.D = 59, c.H = 3, c.Hk = 1; });
  add("moba_large_blocks", [](MobaCase& c) { c.S = 128, c.D = 64, c.K = 2; });
  add("moba_per_group", [](MobaCase& c) { c.select = kernels::Select::per_group; });
  add("moba_minmax", [](MobaCase& c) { c.gate = Gate::minmax; });
  add("moba_topk_40", [](MobaCase& c) { c.S = 4, c.K = 40; });
  add("full", [](MobaCase& c) { c.type = AttentionType::full, c.K = 1; });
  add("window", [](MobaCase& c) { c.type = AttentionType::window, c.window = 45, c.K = 1; });
  return cases;
}

using Parameter = std::tuple<MobaCase, Isa>;
class MobaProperty : public ::testing::TestWithParam<Parameter> {
 protected:
  void SetUp() override { kernels::set_active_isa(std::get<1>(GetParam())); }
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
  const MobaCase& c() const { return std::get<0>(GetParam()); }

  template <class F>
  void for_each_dtype(F&& f) {
    f(float{});
    if (std::get<1>(GetParam()) != Isa::reference) f(bf16{});  // the reference is one template and slow
  }
};
INSTANTIATE_TEST_SUITE_P(Cases, MobaProperty,
                         ::testing::Combine(::testing::ValuesIn(property_cases()), ::testing::ValuesIn(kernels::supported_isas())),
                         [](const auto& info) { return std::get<0>(info.param).id + "_" + kernels::isa_name(std::get<1>(info.param)); });

TEST_P(MobaProperty, RunToRunAndAnyNumberOfThreads) {
  for_each_dtype([&](auto type) {
    const MobaInputs in = make_inputs(c(), 5);
    const int threads = num_threads();
    set_num_threads(1);
    const Whole<decltype(type)> first(c(), in);
    for (const int n : {1, 2, 4}) {
      set_num_threads(n);
      const Whole<decltype(type)> again(c(), in);
      EXPECT_EQ(again.selection.selected, first.selection.selected);
      SCOPED_TRACE(n);
      expect_same(again.run, first.run);
    }
    set_num_threads(threads);
  });
}

TEST_P(MobaProperty, PackedAndAloneAreTheSame) {
  for_each_dtype([&](auto type) {
    const MobaInputs in = make_inputs(c(), 5);
    const Whole<decltype(type)> packed(c(), in);
    for (int64_t s = 1; s < std::ssize(c().k_lens); ++s) {
      SCOPED_TRACE("sequence " + std::to_string(s));
      const int64_t length = c().k_lens[static_cast<size_t>(s)], first = in.cu_q[static_cast<size_t>(s)];
      MobaCase one = c();
      one.k_lens = {length};
      const Whole<decltype(type)> alone(one, part_of(c(), in, s, 0, length, length));
      const int64_t q_width = c().H * c().D, k_width = c().Hk * c().D;
      EXPECT_TRUE(same_rows("out", alone.run.out, 0, packed.run.out, first, length, q_width));
      EXPECT_TRUE(same_rows("lse", alone.run.lse, 0, packed.run.lse, first, length, c().H));
      EXPECT_TRUE(same_rows("dq", alone.run.dq, 0, packed.run.dq, first, length, q_width));
      EXPECT_TRUE(same_rows("dk", alone.run.dk, 0, packed.run.dk, first, length, k_width));
      EXPECT_TRUE(same_rows("dv", alone.run.dv, 0, packed.run.dv, first, length, k_width));
    }
  });
}

// What replaces the tokens from some position on; NaN and Inf must stay where causality allows.
struct Poison {
  const char* name;
  float value;
  bool one_token;
};

TEST_P(MobaProperty, ThePastDoesNotSeeTheFuture) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  for_each_dtype([&](auto type) {
    const MobaInputs in = make_inputs(c(), 5);
    const Whole<decltype(type)> before(c(), in);
    const int64_t length = c().k_lens[2];
    int64_t round = 0;
    for (const Poison poison : {Poison{"other numbers", 3, false}, Poison{"NaN", kNaN, true}, Poison{"Inf", kInf, true},
                                Poison{"-Inf", -kInf, true}, Poison{"NaN to the end", kNaN, false}}) {
      // Inside a block, at its first and last token, and at both ends, a few of them for each kind.
      const int64_t positions[] = {1, 100, 159, 160, length - 2};
      for (const int64_t position : {positions[round % 5], positions[(round + 2) % 5]}) {
        SCOPED_TRACE(std::string(poison.name) + " from position " + std::to_string(position));
        MobaInputs changed = in;
        const int64_t first = in.cu_q[2] + position, last = poison.one_token ? first + 1 : in.cu_q[3];
        const auto fill = [&](std::vector<float>& x, int64_t width) {
          std::fill(x.begin() + first * width, x.begin() + last * width, poison.value);
        };
        fill(changed.q, c().H * c().D);
        fill(changed.k, c().Hk * c().D);
        fill(changed.v, c().Hk * c().D);
        const Whole<decltype(type)> after(c(), changed);
        const int64_t width = c().H * c().D;
        EXPECT_TRUE(same_rows("out", after.run.out, 0, before.run.out, 0, first, width));
        EXPECT_TRUE(same_rows("lse", after.run.lse, 0, before.run.lse, 0, first, c().H));
        EXPECT_TRUE(same_rows("dq", after.run.dq, 0, before.run.dq, 0, first, width));
        // The next sequence of the batch is not concerned either.
        EXPECT_TRUE(same_rows("out", after.run.out, in.cu_q[3], before.run.out, in.cu_q[3], 17, width));
        EXPECT_TRUE(same_rows("dk", after.run.dk, in.cu_q[3], before.run.dk, in.cu_q[3], 17, c().Hk * c().D));
        EXPECT_TRUE(!std::isnan(poison.value) || std::isnan(widen(after.run.out)[static_cast<size_t>(first * width)]));
      }
      ++round;
    }
  });
}

TEST_P(MobaProperty, ChunkedPrefillIsOneShotBitForBitAndDecodeIsClose) {
  for_each_dtype([&](auto type) {
    using T = decltype(type);
    const MobaInputs in = make_inputs(c(), 5);
    const Whole<T> whole(c(), in);
    const int64_t first = in.cu_q[2], width = c().H * c().D;
    for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 100}, {100, 101}, {100, 163}, {163, 333}, {332, 333}}) {
      SCOPED_TRACE("queries " + std::to_string(from) + " to " + std::to_string(to));
      MobaCase chunk = c();
      chunk.k_lens = {to};
      chunk.q_lens = {to - from};
      const MobaInputs part = part_of(c(), in, 2, from, to, to);
      const Whole<T> got(chunk, part);
      for (int64_t i = 0; i < (to - from) * got.selection.rows; ++i) {
        const int32_t* a = &got.selection.selected[static_cast<size_t>(i * got.selection.slots)];
        const int32_t* b =
            &whole.selection.selected[static_cast<size_t>(((first + from) * got.selection.rows + i) * whole.selection.slots)];
        ASSERT_TRUE(std::equal(a, a + got.selection.slots, b)) << "selection of row " << i;
      }
      if (to - from > 1) {
        EXPECT_TRUE(same_rows("out", got.run.out, 0, whole.run.out, first + from, to - from, width));
        EXPECT_TRUE(same_rows("lse", got.run.lse, 0, whole.run.lse, first + from, to - from, c().H));
      } else {
        const auto want = moba::test::widen(whole.run.out.data() + (first + from) * width, width);
        EXPECT_TRUE(close_rms("out", widen(got.run.out), want, std::is_same_v<T, bf16> ? 5e-3 : 1e-5));
      }
    }
  });
}

// ---- relations between the types

class MobaRelation : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { kernels::set_active_isa(GetParam()); }
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
};
INSTANTIATE_TEST_SUITE_P(Isas, MobaRelation, ::testing::ValuesIn(kernels::supported_isas()),
                         [](const auto& info) { return std::string(kernels::isa_name(info.param)); });

void expect_close(const AttentionRun<float>& got, const AttentionRun<float>& want) {
  EXPECT_TRUE(close_rms("out", widen(got.out), widen(want.out), 1e-5));
  EXPECT_TRUE(close_each("lse", widen(got.lse), widen(want.lse), 1e-5, 1e-5));
  EXPECT_TRUE(close_rms("dq", widen(got.dq), widen(want.dq), 1e-4));
  EXPECT_TRUE(close_rms("dk", widen(got.dk), widen(want.dk), 1e-4));
  EXPECT_TRUE(close_rms("dv", widen(got.dv), widen(want.dv), 1e-4));
}

TEST_P(MobaRelation, AllBlocksAreDenseAttention) {
  MobaCase all{.id = "all", .k_lens = {200, 33}, .H = 4, .Hk = 2, .D = 40, .S = 16, .K = 13};
  const MobaInputs in = make_inputs(all, 6);
  MobaCase dense = all;
  dense.type = AttentionType::full;
  const Whole<float> want(dense, in);
  for (const int64_t K : {13, 16, 200}) {
    all.K = K;
    expect_close(Whole<float>(all, in).run, want.run);
  }
}

TEST_P(MobaRelation, TopkOneIsDenseAttentionWithinEachBlock) {
  const MobaCase one{.id = "one", .k_lens = {100}, .H = 4, .Hk = 2, .D = 40, .S = 30, .K = 1};
  const MobaInputs in = make_inputs(one, 6);
  MobaCase blocks = one;
  blocks.type = AttentionType::full;
  blocks.k_lens = {30, 30, 30, 10};
  MobaInputs cut = in;
  cut.cu_q = cut.cu_k = {0, 30, 60, 90, 100};
  expect_close(Whole<float>(one, in).run, Whole<float>(blocks, cut).run);
}

TEST_P(MobaRelation, PermutingHeadsPermutesTheOutput) {
  const MobaCase c{.id = "heads", .k_lens = {150}, .H = 3, .Hk = 3, .D = 16, .S = 16, .K = 3};
  const MobaInputs in = make_inputs(c, 6);
  MobaInputs swapped = in;  // head 0 <-> 2
  for (auto* x : {&swapped.q, &swapped.k, &swapped.v, &swapped.dout})
    for (int64_t t = 0; t < 150; ++t) std::swap_ranges(x->begin() + t * 48, x->begin() + t * 48 + 16, x->begin() + t * 48 + 32);
  Whole<float> a(c, in);
  const Whole<float> b(c, swapped);
  for (auto* x : {&a.run.out, &a.run.dq, &a.run.dk, &a.run.dv})
    for (int64_t t = 0; t < 150; ++t) std::swap_ranges(x->data() + t * 48, x->data() + t * 48 + 16, x->data() + t * 48 + 32);
  EXPECT_TRUE(same_bits("out", a.run.out.data(), b.run.out.data(), b.run.out.size_bytes()));
  EXPECT_TRUE(same_bits("dq", a.run.dq.data(), b.run.dq.data(), b.run.dq.size_bytes()));
  EXPECT_TRUE(same_bits("dk", a.run.dk.data(), b.run.dk.data(), b.run.dk.size_bytes()));
  EXPECT_TRUE(same_bits("dv", a.run.dv.data(), b.run.dv.data(), b.run.dv.size_bytes()));
}

}  // namespace
}  // namespace moba::test
