#include "kernels/grad_norm/grad_norm.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

TEST(GradNorm, EqualsOwnLoop) {
  for_each_isa_and_dtype([](DType dtype) {
    for (int64_t n : {0, 1, 5, 17, 65535, 65537, 200001}) {
      const Array x = Array::normal(dtype, n, 1);
      double want = 0;
      for (double v : x.values()) want += v * v;
      EXPECT_NEAR(sum_of_squares({}, dtype, n, x.data()), want, 1e-12 * want) << n;
    }
  });
}

// Squares of 1e30 overflow fp32 but not the fp64 sum.
TEST(GradNorm, LargeValuesStayFinite) {
  for_each_isa([] {
    const Array x(DType::f32, std::vector<float>(1000, 1e30f));
    EXPECT_NEAR(sum_of_squares({}, DType::f32, 1000, x.data()) / 1e63, 1, 1e-6);
  });
}

TEST(GradNorm, NonFinitePropagates) {
  for_each_isa_and_dtype([](DType dtype) {
    for (int64_t at : {0, 70000, 99999}) {
      Array x = Array::normal(dtype, 100000, 1);
      x.set(at, std::numeric_limits<double>::infinity());
      EXPECT_TRUE(std::isinf(sum_of_squares({}, dtype, x.size(), x.data())));
      x.set(at, std::numeric_limits<double>::quiet_NaN());
      EXPECT_TRUE(std::isnan(sum_of_squares({}, dtype, x.size(), x.data())));
    }
  });
}

TEST(GradNorm, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Array x = Array::normal(DType::f32, 700001, 1);
    Array sum(DType::f64, 1);
    sum.set(0, sum_of_squares({}, DType::f32, x.size(), x.data()));
    return sum;
  });
}

TEST(GradNorm, RefusesWrongArguments) {
  float x = 0;
  EXPECT_EQ(error_of([&] { sum_of_squares({}, DType::i64, 1, &x); }), "sum_of_squares: dtype i64 is not supported; use f32, bf16 or f64");
}

}  // namespace
}  // namespace moba::test
