#include "kernels/elementwise/elementwise.h"

#include <cstring>
#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

constexpr int64_t kSizes[] = {0, 1, 2, 7, 9, 16, 31, 33, 130, 70001};

TEST(Elementwise, AddMultiplyScale) {
  for_each_isa_and_dtype([](DType dtype) {
    for (int64_t n : kSizes) {
      const Array a = Array::normal(dtype, n, 1), b = Array::normal(dtype, n, 2);
      Array sum(dtype, n), product(dtype, n), scaled(dtype, n);
      add({}, dtype, n, a.data(), b.data(), sum.data());
      multiply({}, dtype, n, a.data(), b.data(), product.data());
      scale({}, dtype, n, -0.3, a.data(), scaled.data());
      std::vector<double> p = a.values(), q = b.values(), want_sum, want_product, want_scaled;
      for (size_t i = 0; i < p.size(); ++i)
        want_sum.push_back(p[i] + q[i]), want_product.push_back(p[i] * q[i]), want_scaled.push_back(-0.3 * p[i]);
      EXPECT_CLOSE_RMS(sum.values(), want_sum, tolerance(dtype));
      EXPECT_CLOSE_RMS(product.values(), want_product, tolerance(dtype));
      EXPECT_CLOSE_RMS(scaled.values(), want_scaled, tolerance(dtype));
      EXPECT_TRUE(sum.guards_intact() && product.guards_intact() && scaled.guards_intact());
      Array in_place = a;
      add({}, dtype, n, in_place.data(), b.data(), in_place.data());
      EXPECT_TRUE(same_bits("in place", in_place.data(), sum.data(), sum.size_bytes()));
    }
  });
}

TEST(Elementwise, AccumulateEveryPair) {
  for_each_isa_and_dtype([](DType dst_dtype) {
    for (DType src_dtype : float_dtypes())
      for (int64_t n : kSizes) {
        const Array src = Array::normal(src_dtype, n, 1), before = Array::normal(dst_dtype, n, 2);
        Array dst = before;
        accumulate({}, dst_dtype, src_dtype, n, src.data(), dst.data());
        std::vector<double> want = before.values(), x = src.values();
        for (size_t i = 0; i < x.size(); ++i) want[i] += x[i];
        EXPECT_CLOSE_RMS(dst.values(), want, tolerance(dst_dtype));
        EXPECT_TRUE(dst.guards_intact());
      }
  });
}

TEST(Elementwise, ConvertEveryPair) {
  for_each_isa_and_dtype([](DType from) {
    for (DType to : float_dtypes())
      for (int64_t n : kSizes) {
        const Array x = Array::normal(from, n, 1);
        Array y(to, n);
        convert({}, from, to, n, x.data(), y.data());
        EXPECT_CLOSE_RMS(y.values(), x.values(), from == to ? 0 : tolerance(to) + 1e-7);
        EXPECT_TRUE(y.guards_intact());
      }
  });
}

// Every rounding case of fp32 -> bf16: ties to even both ways, just below and above a tie, overflow to Inf, denormals, NaN
// whose payload lies in the lower half only.
TEST(Elementwise, Bf16RoundingBitForBit) {
  const uint32_t in[] = {0x3f800000, 0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0xbf808000, 0x7f7fffff, 0x7f800000,
                         0xff800000, 0x7f800001, 0xffc00000, 0x00000001, 0x80008000, 0x00018000, 0x7fffffff};
  const uint16_t want[] = {0x3f80, 0x3f80, 0x3f82, 0x3f80, 0x3f81, 0xbf80, 0x7f80, 0x7f80,
                           0xff80, 0x7fc0, 0xffc0, 0x0000, 0x8000, 0x0002, 0x7fff};
  for_each_isa([&] {
    float x[15];
    std::memcpy(x, in, sizeof(x));
    uint16_t y[15];
    convert({}, DType::f32, DType::bf16, 15, x, y);
    for (size_t i = 0; i < 15; ++i) {
      const bool both_nan = (want[i] & 0x7fff) > 0x7f80 && (y[i] & 0x7fff) > 0x7f80;
      EXPECT_TRUE(y[i] == want[i] || both_nan) << std::hex << in[i] << " gave " << y[i] << ", want " << want[i];
    }
  });
}

TEST(Elementwise, FillEveryDtype) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8, DType::u16, DType::u32}) {
    Array y(dtype, 37);
    fill({}, dtype, 37, 3, y.data());
    for (double v : y.values()) EXPECT_EQ(v, 3) << dtype_name(dtype);
    EXPECT_TRUE(y.guards_intact());
  }
}

TEST(Elementwise, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Array a = Array::normal(DType::f32, 200003, 1);
    Array y(DType::bf16, 200003);
    convert({}, DType::f32, DType::bf16, y.size(), a.data(), y.data());
    return y;
  });
}

TEST(Elementwise, RefusesWrongArguments) {
  float x = 0;
  EXPECT_EQ(error_of([&] { add({}, DType::i32, 1, &x, &x, &x); }), "add: dtype i32 is not supported; use f32, bf16 or f64");
  EXPECT_EQ(error_of([&] { multiply({}, DType::f32, -1, &x, &x, &x); }), "multiply: n must be >= 0, got -1");
}

}  // namespace
}  // namespace moba::test
