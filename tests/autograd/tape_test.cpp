// The tape: order, sharing of gradients, freeing, hooks, modes, checkpointing.
#include <algorithm>

#include "src/autograd/ops.h"
#include "tests/support/gradcheck.h"

namespace moba::test {
namespace {

using Inputs = std::vector<Variable>;

std::vector<double> values(const Tensor& t) { return widen(t.raw(), t.dtype(), t.numel()); }
Variable leaf(std::vector<float> v, bool requires_grad = true) {
  const auto n = static_cast<int64_t>(v.size());
  return Variable(Tensor::from(v, {n}), requires_grad);
}

TEST(Tape, LeavesAccumulateOverPasses) {
  const Variable x = leaf({1, 2});
  for (int pass = 0; pass < 3; ++pass) backward(ops::sum(ops::multiply(x, x)));
  EXPECT_EQ(values(x.grad()), (std::vector<double>{6, 12}));
  x.zero_grad();
  EXPECT_FALSE(x.has_grad());
}

TEST(Tape, LeavesOfNarrowValuesKeepWideGradients) {
  const Variable x(Tensor::full({4}, 1, DType::bf16), true);
  EXPECT_EQ(x.grad_dtype(), DType::f32);
  for (int i = 0; i < 300; ++i) x.add_grad(Tensor::full({4}, 1, DType::bf16));  // a bf16 sum stops at 256
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(values(x.grad()), std::vector<double>(4, 300));
}

TEST(Tape, FirstGradientIsTakenOverUnlessShared) {
  const Variable x = leaf({1, 2});
  Tensor own = Tensor::full({2}, 3, DType::f32);
  const void* data = own.raw();
  x.add_grad(std::move(own));
  EXPECT_EQ(x.grad().raw(), data);
  const Variable y = leaf({1, 2});
  const Tensor shared = Tensor::full({2}, 3, DType::f32);
  y.add_grad(shared);
  EXPECT_NE(y.grad().raw(), shared.raw()) << "a leaf's gradient is its own: optimizers and reductions write to it";
  y.add_grad(shared);
  EXPECT_EQ(values(shared), (std::vector<double>{3, 3}));
  EXPECT_EQ(values(y.grad()), (std::vector<double>{6, 6}));
}

// add() hands one gradient to both sides; a later gradient of one must not reach the other.
TEST(Tape, SharedInnerGradientsAreCopiedOnWrite) {
  const Variable x = leaf({1, 2}), w = leaf({5, 7});
  const Variable a = ops::scale(x, 2), b = ops::scale(w, 3);
  const Variable early = ops::scale(a, 10);  // delivers to a after the addition below did
  backward(ops::sum(ops::add(ops::add(a, b), early)));
  EXPECT_EQ(values(x.grad()), (std::vector<double>{22, 22}));
  EXPECT_EQ(values(w.grad()), (std::vector<double>{3, 3}));
}

TEST(Tape, SeedIsNotWrittenTo) {
  const Variable x = leaf({1, 2});
  const Tensor seed = Tensor::from(std::vector<float>{3, 4}, {2});
  backward(ops::scale(ops::scale(x, 2), 5), seed);
  EXPECT_EQ(values(seed), (std::vector<double>{3, 4}));
  EXPECT_EQ(values(x.grad()), (std::vector<double>{30, 40}));
}

TEST(Tape, SecondBackwardOverFreedNodesIsAnError) {
  const Variable x = leaf({1, 2});
  const Variable y = ops::sum(ops::multiply(x, x));
  backward(y);
  EXPECT_THROW(backward(y), Error);
  EXPECT_THROW(backward(ops::scale(leaf({1}, false), 2)), Error);
  EXPECT_THROW(backward(ops::scale(x, 2)), Error) << "two elements and no seed";
}

TEST(Tape, NoGradRecordsNothing) {
  const Variable x = leaf({1, 2});
  {
    const NoGrad no_grad;
    EXPECT_FALSE(ops::scale(x, 2).requires_grad());
    const EnableGrad enable;
    EXPECT_TRUE(ops::scale(x, 2).requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
}

TEST(Tape, WalkFreesAsItGoes) {
  constexpr int64_t kBytes = 4 << 20, kDepth = 16;
  const Variable x(Tensor::full({kBytes / 4}, 1, DType::f32), true);
  Variable y = x;
  for (int i = 0; i < kDepth; ++i) y = ops::multiply(y, y);
  const int64_t before = memory_stats().allocated;
  reset_peak_memory();
  y = ops::sum(y);
  backward(y);
  // x, its gradient, and at no time more than a few gradients beside what the forward pass had saved
  EXPECT_LE(memory_stats().peak_allocated, before + 3 * kBytes);
  EXPECT_LE(memory_stats().allocated, 2 * kBytes + 4096);
}

TEST(Tape, ValuesNobodyNeedsAreFreedInTheForwardPass) {
  constexpr int64_t kBytes = 4 << 20;
  const Variable x(Tensor::full({kBytes / 4}, 1, DType::f32), true);
  const int64_t before = memory_stats().allocated;
  Variable y = ops::scale(x, 2);
  for (int i = 0; i < 8; ++i) y = ops::scale(y, 1.5);
  EXPECT_LE(memory_stats().allocated, before + kBytes);
}

TEST(Tape, HookFiresOnceAfterTheLastGradient) {
  const Variable x = leaf({1, 2}), unused = leaf({1, 2});
  std::vector<std::vector<double>> seen;
  x.set_grad_hook([&] { seen.push_back(values(x.grad())); });
  unused.set_grad_hook([&] { ADD_FAILURE() << "no gradient arrived here"; });
  const Variable a = ops::scale(x, 2);
  backward(ops::sum(ops::add(ops::multiply(a, x), ops::scale(x, 3))));
  EXPECT_EQ(seen, (std::vector<std::vector<double>>{{7, 11}}));
}

// ---- checkpoint ----

struct Weights {
  Variable w1{random({6, 6}, 1, 0.5, DType::f32), true}, w2{random({6, 6}, 2, 0.5, DType::f32), true},
      norm{random({6}, 3, 1, DType::f32), true};
  Variable x{random({5, 6}, 4, 1, DType::f32), true};
  Inputs all() const { return {w1, w2, norm, x}; }
};

Variable block(const Variable& x, const Weights& w) {
  const auto [sum, normed] = ops::add_rms_norm(ops::linear(ops::rms_norm(x, w.norm, 1e-5), w.w1), x, w.norm, 1e-5);
  return ops::add(sum, ops::swiglu(ops::linear(normed, w.w2), normed));
}

// Three blocks; x is used around the checkpointed middle one too. bits: of all gradients.
std::vector<std::vector<float>> gradients_of_blocks(const std::function<Variable(const Variable&, const Weights&)>& middle,
                                                    std::vector<int>* hooks = nullptr) {
  const Weights w;
  if (hooks) w.w1.set_grad_hook([hooks] { hooks->push_back(1); });
  const Variable first = block(w.x, w);
  const Variable last = block(ops::add(middle(first, w), first), w);
  backward(ops::sum(ops::multiply(last, last)));
  std::vector<std::vector<float>> all;
  for (const Variable& v : w.all()) all.push_back(v.grad().to_vector<float>());
  return all;
}

Variable checkpointed(const Variable& x, const Weights& w) {
  return checkpoint([w](const Inputs& in) { return block(in[0], w); }, {x});
}

TEST(Checkpoint, SameBitsAsWithout) {
  std::vector<int> hooks;
  const auto plain = gradients_of_blocks(block), again = gradients_of_blocks(checkpointed, &hooks);
  EXPECT_EQ(plain, again);
  EXPECT_EQ(hooks.size(), 1u) << "a captured parameter's hook waits for its last use in the whole pass";
}

TEST(Checkpoint, NestedGivesTheSameBits) {
  const auto nested = [](const Variable& x, const Weights& w) {
    return checkpoint([w](const Inputs& in) { return checkpointed(checkpointed(in[0], w), w); }, {x});
  };
  const auto twice = [](const Variable& x, const Weights& w) { return block(block(x, w), w); };
  EXPECT_EQ(gradients_of_blocks(twice), gradients_of_blocks(nested));
}

// A variable of the outer graph that fn reads without taking it as an input: the inner walk must stop there, since `early` has
// yet to deliver its share.
TEST(Checkpoint, CapturedInnerVariableGetsItsGradient) {
  const auto run = [](bool use_checkpoint) {
    const Variable x(random({4}, 1), true), y(random({4}, 2), true);
    const Variable outer = ops::multiply(x, x);
    const Variable early = ops::scale(outer, 3);
    const auto fn = [&](const Inputs& in) { return ops::multiply(in[0], outer); };
    const Variable out = use_checkpoint ? checkpoint(fn, {y}) : fn({y});
    backward(ops::sum(ops::add(out, early)));
    return std::pair(values(x.grad()), values(y.grad()));
  };
  EXPECT_EQ(run(false), run(true));
}

TEST(Checkpoint, InputsWithoutGradientStillTrainParameters) {
  const Weights w;
  const Variable x(random({5, 6}, 9, 1, DType::f32));
  backward(ops::sum(checkpointed(x, w)));
  EXPECT_TRUE(w.w1.has_grad());
  EXPECT_FALSE(x.has_grad());
}

TEST(Checkpoint, KeepsOnlyInputs) {
  constexpr int64_t kBytes = 4 << 20;
  const Variable x(Tensor::full({kBytes / 4}, 1, DType::f32), true);
  const int64_t before = memory_stats().allocated;
  const Variable y = checkpoint(
      [](const Inputs& in) {
        Variable v = in[0];
        for (int i = 0; i < 8; ++i) v = ops::multiply(v, v);
        return v;
      },
      {x});
  EXPECT_LE(memory_stats().allocated, before + kBytes);
}

}  // namespace
}  // namespace moba::test
