#include "kernels/swiglu/swiglu.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

constexpr int64_t kSizes[] = {0, 1, 3, 7, 8, 15, 31, 33, 257, 40007};

Array spread(DType dtype, int64_t n, uint64_t seed, float by) {
  auto x = random_normal(n, seed);
  for (float& v : x) v *= by;
  return Array(dtype, x);
}

TEST(Swiglu, ForwardEqualsOwnLoop) {
  for_each_isa_and_dtype([](DType dtype) {
    for (int64_t n : kSizes) {
      const Array gate = spread(dtype, n, 1, 4), up = spread(dtype, n, 2, 1);
      Array y(dtype, n);
      swiglu_forward({}, dtype, n, gate.data(), up.data(), y.data());
      std::vector<double> want, g = gate.values(), u = up.values();
      for (size_t i = 0; i < g.size(); ++i) want.push_back(g[i] / (1 + std::exp(-g[i])) * u[i]);
      EXPECT_CLOSE_RMS(y.values(), want, tolerance(dtype));
      EXPECT_TRUE(y.guards_intact());
    }
  });
}

TEST(Swiglu, BackwardEqualsOwnLoopAlsoInPlace) {
  for_each_isa_and_dtype([](DType dtype) {
    for (int64_t n : kSizes) {
      const Array gate = spread(dtype, n, 1, 4), up = spread(dtype, n, 2, 1), dy = spread(dtype, n, 3, 1);
      Array dgate(dtype, n), dup(dtype, n);
      swiglu_backward({}, dtype, n, gate.data(), up.data(), dy.data(), dgate.data(), dup.data());
      std::vector<double> want_gate, want_up, g = gate.values(), u = up.values(), d = dy.values();
      for (size_t i = 0; i < g.size(); ++i) {
        const double e = std::exp(-g[i]), s = 1 / (1 + e);
        want_gate.push_back(d[i] * u[i] * (s + g[i] * e / ((1 + e) * (1 + e))));
        want_up.push_back(d[i] * g[i] * s);
      }
      EXPECT_CLOSE_RMS(dgate.values(), want_gate, tolerance(dtype));
      EXPECT_CLOSE_RMS(dup.values(), want_up, tolerance(dtype));
      EXPECT_TRUE(dgate.guards_intact() && dup.guards_intact());
      Array gate2 = gate, up2 = up;
      swiglu_backward({}, dtype, n, gate2.data(), up2.data(), dy.data(), gate2.data(), up2.data());
      EXPECT_TRUE(same_bits("dgate in place", gate2.data(), dgate.data(), dgate.size_bytes()));
      EXPECT_TRUE(same_bits("dup in place", up2.data(), dup.data(), dup.size_bytes()));
    }
  });
}

TEST(Swiglu, ExtremeGates) {
  for_each_isa_and_dtype([](DType dtype) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const Array gate(dtype, {-1e30f, -200, -100, 0, 100, 200, 1e30f, nan, inf}), up(dtype, {1, 1, 1, 1, 1, 1, 1, 1, 1});
    Array y(dtype, 9), dgate(dtype, 7), dup(dtype, 7);
    swiglu_forward({}, dtype, 9, gate.data(), up.data(), y.data());
    const Array hundred(dtype, {100, 200, 1e30f});
    const auto got = y.values(), big = hundred.values();
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], 0, 1e-30);
    EXPECT_EQ(got[3], 0);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got[4 + i], big[i]);
    EXPECT_TRUE(std::isnan(got[7]));
    EXPECT_EQ(got[8], inf);
    swiglu_backward({}, dtype, 7, gate.data(), up.data(), up.data(), dgate.data(), dup.data());
    for (int64_t i = 0; i < 7; ++i) EXPECT_TRUE(std::isfinite(dgate.values()[static_cast<size_t>(i)]));
    EXPECT_NEAR(dgate.values()[4], 1, 1e-6);
    EXPECT_NEAR(dgate.values()[0], 0, 1e-6);
  });
}

TEST(Swiglu, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Array gate = Array::normal(DType::bf16, 100003, 1), up = Array::normal(DType::bf16, 100003, 2);
    Array y(DType::bf16, 100003);
    swiglu_forward({}, DType::bf16, y.size(), gate.data(), up.data(), y.data());
    return y;
  });
}

TEST(Swiglu, RefusesWrongArguments) {
  float x = 0;
  EXPECT_EQ(error_of([&] { swiglu_forward({}, DType::i32, 1, &x, &x, &x); }), "swiglu: dtype i32 is not supported; use f32, bf16 or f64");
  EXPECT_NE(error_of([&] { swiglu_forward({DeviceType::cuda}, DType::f32, 1, &x, &x, &x); }).find("no CUDA kernel"), std::string::npos);
}

}  // namespace
}  // namespace moba::test
