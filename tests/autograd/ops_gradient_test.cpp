// Gradients of every op against central differences in fp64.
#include "src/autograd/ops.h"
#include "tests/support/gradcheck.h"

namespace moba::test {
namespace {

using V = const std::vector<Variable>&;

Tensor ints(std::vector<int32_t> values) {
  const auto n = static_cast<int64_t>(values.size());
  return Tensor::from(values, {n});
}

TEST(OpsGradient, Add) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::add(v[0], v[1]); }, {random({3, 4}, 1), random({3, 4}, 2)}));
}
TEST(OpsGradient, AddOfOneVariableToItself) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::add(v[0], ops::add(v[0], v[0])); }, {random({5}, 1)}));
}
TEST(OpsGradient, Multiply) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::multiply(v[0], v[1]); }, {random({3, 4}, 1), random({3, 4}, 2)}));
}
TEST(OpsGradient, Scale) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::scale(v[0], -2.5); }, {random({7}, 1)}));
}
TEST(OpsGradient, Reshape) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::matmul(ops::reshape(v[0], {-1, 3}), v[1]); }, {random({2, 6}, 1), random({3, 2}, 2)}));
}
TEST(OpsGradient, Sum) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::sum(ops::multiply(v[0], v[0])); }, {random({3, 5}, 1)}));
}
TEST(OpsGradient, Matmul) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::matmul(v[0], v[1]); }, {random({3, 4}, 1), random({4, 5}, 2)}));
}
TEST(OpsGradient, MatmulProjected) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::matmul(v[0], v[1]); }, {random({30, 40}, 1), random({40, 25}, 2)}));
}
TEST(OpsGradient, Linear) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::linear(v[0], v[1]); }, {random({5, 4}, 1), random({3, 4}, 2)}));
}
TEST(OpsGradient, LinearTwiceWithOneWeight) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::linear(ops::linear(v[0], v[1]), v[1]); }, {random({5, 4}, 1), random({4, 4}, 2)}));
}
TEST(OpsGradient, LinearOfAnInnerWeight) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::linear(v[0], ops::multiply(v[1], v[1])); }, {random({5, 4}, 1), random({3, 4}, 2)}));
}
TEST(OpsGradient, EmbeddingWithRepeatedIds) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::embedding(v[0], ints({2, 0, 2, 4, 2})); }, {random({5, 3}, 1)}));
}
TEST(OpsGradient, RmsNorm) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::rms_norm(v[0], v[1], 1e-5); }, {random({4, 6}, 1), random({6}, 2)}));
}
TEST(OpsGradient, RmsNormOverHeads) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::rms_norm(v[0], v[1], 1e-2); }, {random({3, 2, 4}, 1), random({4}, 2)}));
}
// The input has uses before and after the norm: their gradients meet inside the norm's kernel.
TEST(OpsGradient, RmsNormOfAValueUsedElsewhere) {
  const auto fn = [](V v) {
    const Variable h = ops::scale(v[0], 1.5);
    const Variable before = ops::multiply(h, h);
    const Variable normed = ops::rms_norm(h, v[1], 1e-5);
    return ops::add(ops::add(before, normed), ops::multiply(h, v[0]));
  };
  EXPECT_TRUE(gradcheck(fn, {random({4, 6}, 1), random({6}, 2)}));
}
TEST(OpsGradient, AddRmsNormBothOutputs) {
  const auto fn = [](V v) {
    const auto [sum, normed] = ops::add_rms_norm(ops::scale(v[0], 2), ops::scale(v[1], 3), v[2], 1e-5);
    return ops::add(ops::multiply(sum, v[0]), normed);
  };
  EXPECT_TRUE(gradcheck(fn, {random({3, 4}, 1), random({3, 4}, 2), random({4}, 3)}));
}
TEST(OpsGradient, AddRmsNormOneOutput) {
  const std::vector<Tensor> inputs{random({3, 4}, 1), random({3, 4}, 2), random({4}, 3)};
  EXPECT_TRUE(gradcheck([](V v) { return ops::add_rms_norm(v[0], v[1], v[2], 1e-5).sum; }, inputs));
  EXPECT_TRUE(gradcheck([](V v) { return ops::add_rms_norm(v[0], v[1], v[2], 1e-5).normed; }, inputs));
}
TEST(OpsGradient, Rope) {
  const Tensor inv_freq = Tensor::from(kernels::rope_inv_freq(6, 10000, {}), {3});
  EXPECT_TRUE(gradcheck([&](V v) { return ops::rope(v[0], ints({0, 1, 0, 7}), inv_freq); }, {random({4, 2, 6}, 1)}));
}
TEST(OpsGradient, Swiglu) {
  EXPECT_TRUE(gradcheck([](V v) { return ops::swiglu(v[0], v[1]); }, {random({3, 5}, 1, 2), random({3, 5}, 2)}));
}
TEST(OpsGradient, KeyConv) {
  for (int64_t width : {3, 5})
    EXPECT_TRUE(gradcheck(
        [](V v) {
          return ops::key_conv(v[0], v[1], ints({0, 4, 4, 9}));
        },
        {random({9, 4}, 1), random({4, width}, 2)}))
        << width;
}
TEST(OpsGradient, LinearCrossEntropy) {
  const Tensor targets = ints({3, -1, 0, 6, 2});
  const std::vector<Tensor> inputs{random({5, 4}, 1), random({7, 4}, 2)};
  EXPECT_TRUE(gradcheck([&](V v) { return ops::linear_cross_entropy(v[0], v[1], targets, 0.25); }, inputs));
  EXPECT_TRUE(gradcheck([&](V v) { return ops::scale(ops::linear_cross_entropy(v[0], v[1], targets, 0.25), 2); }, inputs));
  EXPECT_TRUE(gradcheck(
      [&](V v) {
        const Variable loss = ops::linear_cross_entropy(v[0], v[1], targets, 1);
        return ops::multiply(loss, ops::linear_cross_entropy(ops::scale(v[0], 2), v[1], targets, 1));
      },
      inputs));
}
// A whole little network: tied head, residual stream, every op at work.
TEST(OpsGradient, SmallNetwork) {
  const Tensor ids = ints({1, 4, 2, 2, 5}), targets = ints({4, 2, 2, 5, -1}), cu = ints({0, 5}), positions = ints({0, 1, 2, 3, 4});
  const Tensor inv_freq = Tensor::from(kernels::rope_inv_freq(4, 10000, {}), {2});
  const auto fn = [&](V v) {
    const Variable x = ops::embedding(v[0], ids);
    const Variable normed = ops::rms_norm(x, v[1], 1e-5);
    const Variable k = ops::key_conv(ops::linear(normed, v[2]), v[3], cu);
    const Variable turned = ops::reshape(ops::rope(ops::reshape(k, {5, 1, 4}), positions, inv_freq), {5, 4});
    const auto [sum, normed2] = ops::add_rms_norm(turned, x, v[1], 1e-5);
    const Variable out = ops::add(sum, ops::swiglu(ops::linear(normed2, v[2]), normed2));
    return ops::linear_cross_entropy(out, v[0], targets, 0.25);
  };
  EXPECT_TRUE(gradcheck(fn, {random({6, 4}, 1), random({4}, 2), random({4, 4}, 3), random({4, 3}, 4)}));
}
// The checker itself must see a wrong gradient.
TEST(GradCheck, SeesAWrongGradient) {
  const auto wrong = [](V v) {
    Tensor y = v[0].value().clone();
    return make_output(std::move(y), "wrong", {v[0]}, [x = v[0]](const Tensor& grad) {
      Tensor g = grad.clone();
      g.data<double>()[0] *= 1 + 1e-5;
      x.add_grad(g);
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random({4}, 1)}));
  EXPECT_FALSE(gradcheck(wrong, {random({200}, 1)}, {.tolerance = 1e-8, .full_jacobian = 1}));
}

}  // namespace
}  // namespace moba::test
