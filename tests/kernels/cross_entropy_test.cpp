#include "kernels/cross_entropy/cross_entropy.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

constexpr double kScale = 0.25;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Result {
  std::vector<double> losses;
  Array dlogits;
  Result(DType dtype, DType grad_dtype, const Array& logits, const std::vector<int32_t>& targets)
      : losses(targets.size(), -1), dlogits(grad_dtype, logits.size()) {
    CrossEntropyArgs a;
    a.dtype = dtype;
    a.grad_dtype = grad_dtype;
    a.rows = static_cast<int64_t>(targets.size());
    a.vocab = a.rows ? logits.size() / a.rows : 1;
    a.logits = logits.data();
    a.targets = targets.data();
    a.scale = kScale;
    a.losses = losses.data();
    a.dlogits = dlogits.data();
    cross_entropy(a);
  }
};

struct Want {
  std::vector<double> losses, dlogits;
};

Want own_loop(const std::vector<double>& x, const std::vector<int32_t>& targets) {
  Want w;
  const size_t vocab = targets.empty() ? 0 : x.size() / targets.size();
  for (size_t r = 0; r < targets.size(); ++r) {
    long double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<long double>(x[r * vocab + i]));
    const bool counted = targets[r] >= 0;
    w.losses.push_back(counted ? static_cast<double>(std::log(sum) - x[r * vocab + static_cast<size_t>(targets[r])]) : 0);
    for (size_t i = 0; i < vocab; ++i) {
      const double p = static_cast<double>(std::exp(static_cast<long double>(x[r * vocab + i])) / sum);
      w.dlogits.push_back(counted ? kScale * (p - (static_cast<size_t>(targets[r]) == i ? 1 : 0)) : 0);
    }
  }
  return w;
}

Array some_logits(DType dtype, int64_t rows, int64_t vocab, float spread) {
  auto x = random_normal(rows * vocab, 1);
  for (float& v : x) v *= spread;
  return Array(dtype, x);
}

std::vector<int32_t> some_targets(int64_t rows, int64_t vocab) {
  std::vector<int32_t> t;
  for (int64_t r = 0; r < rows; ++r) t.push_back(r % 5 == 3 ? -1 : static_cast<int32_t>((r * 37 + 11) % vocab));
  return t;
}

TEST(CrossEntropy, EqualsOwnLoop) {
  for_each_isa([] {
    for (DType dtype : {DType::f32, DType::f64})
      for (DType grad_dtype : float_dtypes())
        for (int64_t vocab : {1, 3, 17, 257, 2047, 2049, 5003})
          for (float spread : {1.0f, 15.0f}) {
            const Array logits = some_logits(dtype, 6, vocab, spread);
            const auto targets = some_targets(6, vocab);
            const Result got(dtype, grad_dtype, logits, targets);
            const Want want = own_loop(logits.values(), targets);
            EXPECT_TRUE(
                close_each("losses", got.losses, want.losses, dtype == DType::f32 ? 2e-7 : 1e-13, dtype == DType::f32 ? 1e-6 : 1e-12))
                << vocab;
            if (vocab == 1) continue;  // p = 1: the gradient is rounding alone
            EXPECT_CLOSE_RMS(got.dlogits.values(), want.dlogits,
                             grad_dtype == DType::f64 ? (dtype == DType::f64 ? 1e-12 : 1e-6) : tolerance(grad_dtype));
            EXPECT_TRUE(got.dlogits.guards_intact());
          }
  });
}

TEST(CrossEntropy, OverwritesItsLogits) {
  for_each_isa([] {
    for (DType dtype : {DType::f32, DType::f64}) {
      Array logits = some_logits(dtype, 4, 301, 3);
      const auto targets = some_targets(4, 301);
      const Result apart(dtype, dtype, logits, targets);
      std::vector<double> losses(4);
      CrossEntropyArgs a;
      a.dtype = a.grad_dtype = dtype;
      a.rows = 4, a.vocab = 301;
      a.logits = a.dlogits = logits.data();
      a.targets = targets.data();
      a.scale = kScale;
      a.losses = losses.data();
      cross_entropy(a);
      EXPECT_TRUE(same_bits("dlogits", logits.data(), apart.dlogits.data(), apart.dlogits.size_bytes()));
      EXPECT_TRUE(same_bits("losses", losses.data(), apart.losses.data(), 32));
    }
  });
}

TEST(CrossEntropy, HugeAndMinusInfinityLogits) {
  for_each_isa([] {
    std::vector<float> x(3 * 4100, -kInfinity);
    x[4000] = 1e30f;             // row 0: one logit far above, all earlier blocks -inf
    x[4100 + 7] = -1e30f;        // row 1: one finite logit
    x[2 * 4100 + 3000] = 88.0f;  // row 2: two equal
    x[2 * 4100 + 100] = 88.0f;
    const Result got(DType::f32, DType::f32, Array(DType::f32, x), {4000, 7, 100});
    EXPECT_NEAR(got.losses[0], 0, 1e-7);
    EXPECT_NEAR(got.losses[1], 0, 1e-7);
    EXPECT_NEAR(got.losses[2], std::log(2.0), 1e-6);
    const auto d = got.dlogits.values();
    EXPECT_EQ(d[0], 0);
    EXPECT_NEAR(d[2 * 4100 + 3000], kScale / 2, 1e-7);
    EXPECT_NEAR(d[2 * 4100 + 100], -kScale / 2, 1e-7);
  });
}

TEST(CrossEntropy, NanStaysInItsRow) {
  for_each_isa([] {
    Array logits = some_logits(DType::f32, 3, 2500, 1);
    logits.set(2500 + 2400, std::numeric_limits<double>::quiet_NaN());
    const Result got(DType::f32, DType::f32, logits, {1, 2, 3});
    EXPECT_TRUE(std::isfinite(got.losses[0]) && std::isnan(got.losses[1]) && std::isfinite(got.losses[2]));
    EXPECT_TRUE(std::isnan(got.dlogits.values()[2500]));
    EXPECT_TRUE(std::isfinite(got.dlogits.values()[2499]) && std::isfinite(got.dlogits.values()[5000]));
  });
}

TEST(CrossEntropy, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads(
      [] { return Result(DType::f32, DType::bf16, some_logits(DType::f32, 40, 3001, 2), some_targets(40, 3001)).dlogits; });
}

TEST(CrossEntropy, RefusesWrongArguments) {
  const Array logits = some_logits(DType::f32, 2, 5, 1);
  EXPECT_EQ(error_of([&] {
              Result(DType::f32, DType::f32, logits, {0, 5});
            }),
            "cross_entropy: target 5 of row 1 is outside [0, 5) (-1 = not counted)");
  EXPECT_EQ(error_of([&] {
              Result(DType::f32, DType::f32, logits, {-2, 0});
            }),
            "cross_entropy: target -2 of row 0 is outside [0, 5) (-1 = not counted)");
  EXPECT_NE(error_of([&] {
              Result(DType::bf16, DType::bf16, logits, {0, 0});
            }).find("logits of bf16 are not supported"),
            std::string::npos);
}

}  // namespace
}  // namespace moba::test
