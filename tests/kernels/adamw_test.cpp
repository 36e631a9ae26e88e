#include "kernels/adamw/adamw.h"

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct State {
  Array w, g, m, v;
  explicit State(DType dtype, int64_t n)
      : w(Array::normal(dtype, n, 1)), g(Array::normal(dtype, n, 2)), m(Array::zeros(dtype, n)), v(Array::zeros(dtype, n)) {}

  AdamwArgs args(DType dtype, int64_t step) {
    AdamwArgs a;
    a.dtype = dtype;
    a.n = w.size();
    a.weight = w.data();
    a.grad = g.data();
    a.m = m.data();
    a.v = v.data();
    a.lr = 3e-3;
    a.weight_decay = 0.1;
    a.step = step;
    a.grad_scale = 0.7;
    return a;
  }
};

void for_both_dtypes(const std::function<void(DType)>& body) {
  for_each_isa([&] {
    for (DType dtype : {DType::f32, DType::f64}) body(dtype);
  });
}

// The algorithm as PyTorch documents it (torch.optim.AdamW), with moments written out as sums over all earlier gradients.
TEST(Adamw, TenStepsEqualClosedForm) {
  for_both_dtypes([](DType dtype) {
    constexpr int64_t kN = 1037;
    State s(dtype, kN);
    std::vector<double> want = s.w.values(), want_m(want.size()), want_v(want.size());
    std::vector<std::vector<double>> gradients;
    for (int64_t t = 1; t <= 10; ++t) {
      s.g = Array::normal(dtype, kN, 10 + static_cast<uint64_t>(t));
      gradients.push_back(s.g.values());
      const AdamwArgs a = s.args(dtype, t);
      adamw(a);
      for (size_t i = 0; i < want.size(); ++i) {
        double m = 0, v = 0;
        for (size_t j = 0; j < gradients.size(); ++j) {
          const double g = 0.7 * gradients[j][i], age = static_cast<double>(gradients.size() - 1 - j);
          m += 0.1 * std::pow(0.9, age) * g;
          v += 0.05 * std::pow(0.95, age) * g * g;
        }
        want_m[i] = m, want_v[i] = v;  // the step alone would not see a wrong scale of the gradient
        const double m_hat = m / (1 - std::pow(0.9, t)), v_hat = v / (1 - std::pow(0.95, t));
        want[i] *= 1 - 3e-3 * 0.1;
        want[i] -= 3e-3 * m_hat / (std::sqrt(v_hat) + 1e-8);
      }
    }
    EXPECT_CLOSE_RMS(s.w.values(), want, dtype == DType::f32 ? 1e-6 : 1e-13);
    EXPECT_CLOSE_RMS(s.m.values(), want_m, dtype == DType::f32 ? 1e-6 : 1e-13);
    EXPECT_CLOSE_RMS(s.v.values(), want_v, dtype == DType::f32 ? 1e-6 : 1e-13);
    EXPECT_TRUE(s.w.guards_intact() && s.m.guards_intact() && s.v.guards_intact());
  });
}

TEST(Adamw, FirstStepIsSignTimesLearningRate) {
  for_both_dtypes([](DType dtype) {
    State s(dtype, 9);
    const std::vector<double> before = s.w.values(), g = s.g.values();
    AdamwArgs a = s.args(dtype, 1);
    a.weight_decay = 0;
    adamw(a);
    const std::vector<double> after = s.w.values();
    for (size_t i = 0; i < 9; ++i) EXPECT_NEAR(before[i] - after[i], g[i] > 0 ? 3e-3 : -3e-3, 1e-6);
  });
}

TEST(Adamw, CopyIsTheRoundedWeight) {
  for_both_dtypes([](DType dtype) {
    State s(dtype, 333);
    Array copy(DType::bf16, 333);
    AdamwArgs a = s.args(dtype, 1);
    a.copy = static_cast<bf16*>(copy.data());
    adamw(a);
    const std::vector<double> w = s.w.values(), c = copy.values();
    for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(c[i], to_float(to_bf16(static_cast<float>(w[i]))));
    EXPECT_TRUE(copy.guards_intact());
  });
}

TEST(Adamw, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    State s(DType::f32, 100003);
    adamw(s.args(DType::f32, 1));
    adamw(s.args(DType::f32, 2));
    return s.w;
  });
}

TEST(Adamw, RefusesWrongArguments) {
  State s(DType::f32, 1);
  AdamwArgs a = s.args(DType::f32, 0);
  EXPECT_EQ(error_of([&] { adamw(a); }), "adamw: step is counted from 1, got 0");
  a = s.args(DType::bf16, 1);
  EXPECT_NE(error_of([&] { adamw(a); }).find("bf16 is not supported"), std::string::npos);
  a = s.args(DType::f32, 1);
  a.beta2 = 1;
  EXPECT_EQ(error_of([&] { adamw(a); }), "adamw: betas must be in [0, 1), got 0.9 and 1");
}

}  // namespace
}  // namespace moba::test
