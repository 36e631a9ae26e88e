#include "kernels/rope/rope.h"

#include <numbers>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct Shape {
  int64_t tokens, heads, head_dim;
};
constexpr Shape kShapes[] = {{0, 2, 8}, {1, 1, 2}, {5, 3, 6}, {37, 4, 64}, {9, 2, 118}, {3, 1, 256}, {2, 2, 300}};

Array rotated(DType dtype, const Shape& s, const Array& x, const std::vector<int32_t>& positions, const std::vector<double>& inv_freq,
              bool inverse = false) {
  Array y(dtype, x.size());
  RopeArgs a;
  a.dtype = dtype;
  a.tokens = s.tokens;
  a.heads = s.heads;
  a.head_dim = s.head_dim;
  a.x = x.data();
  a.y = y.data();
  a.positions = positions.data();
  a.inv_freq = inv_freq.data();
  a.inverse = inverse;
  rope(a);
  EXPECT_TRUE(y.guards_intact());
  return y;
}

std::vector<int32_t> positions_up_to(int64_t tokens, int64_t last) {
  std::vector<int32_t> p;
  for (int64_t t = 0; t < tokens; ++t) p.push_back(static_cast<int32_t>(tokens == 1 ? last : last * t / (tokens - 1)));
  return p;
}

// Rotation as a product of complex numbers, angles in extended precision.
std::vector<double> own_rotation(const Shape& s, const std::vector<double>& x, const std::vector<int32_t>& positions, double theta) {
  std::vector<double> y(x.size());
  const auto half = static_cast<size_t>(s.head_dim / 2);
  for (size_t row = 0; row < static_cast<size_t>(s.tokens * s.heads); ++row)
    for (size_t d = 0; d < half; ++d) {
      const long double angle =
          positions[row / static_cast<size_t>(s.heads)] * std::pow(theta, -static_cast<double>(d) / static_cast<double>(half));
      const size_t at = row * 2 * half + d;
      y[at] = static_cast<double>(x[at] * std::cos(angle) - x[at + half] * std::sin(angle));
      y[at + half] = static_cast<double>(x[at + half] * std::cos(angle) + x[at] * std::sin(angle));
    }
  return y;
}

TEST(Rope, EqualsOwnRotationUpToAMillion) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes)
      for (int64_t last : {31, 1 << 20}) {
        const Array x = Array::normal(dtype, s.tokens * s.heads * s.head_dim, 1);
        const auto positions = positions_up_to(s.tokens, last);
        const Array y = rotated(dtype, s, x, positions, rope_inv_freq(s.head_dim, 10000, {}));
        EXPECT_CLOSE_RMS(y.values(), own_rotation(s, x.values(), positions, 10000), dtype == DType::f64 ? 1e-9 : tolerance(dtype));
      }
  });
}

TEST(Rope, InverseUndoesIt) {
  for_each_isa_and_dtype([](DType dtype) {
    const Shape s = {33, 2, 64};
    const Array x = Array::normal(dtype, s.tokens * s.heads * s.head_dim, 1);
    const auto positions = positions_up_to(s.tokens, 100000);
    const auto inv_freq = rope_inv_freq(s.head_dim, 500000, {});
    const Array back = rotated(dtype, s, rotated(dtype, s, x, positions, inv_freq), positions, inv_freq, true);
    EXPECT_CLOSE_RMS(back.values(), x.values(), 2 * tolerance(dtype));
  });
}

TEST(Rope, InPlaceGivesTheSameBits) {
  for_each_isa_and_dtype([](DType dtype) {
    const Shape s = {7, 3, 20};
    Array x = Array::normal(dtype, 420, 1);
    const auto positions = positions_up_to(7, 50);
    const auto inv_freq = rope_inv_freq(20, 10000, {});
    const Array y = rotated(dtype, s, x, positions, inv_freq);
    RopeArgs a;
    a.dtype = dtype;
    a.tokens = 7, a.heads = 3, a.head_dim = 20;
    a.x = a.y = x.data();
    a.positions = positions.data();
    a.inv_freq = inv_freq.data();
    rope(a);
    EXPECT_TRUE(same_bits("in place", x.data(), y.data(), y.size_bytes()));
  });
}

TEST(Rope, LinearScalingAndInterpolationDividePositions) {
  const auto plain = rope_inv_freq(64, 10000, {});
  RopeScaling s;
  s.type = RopeType::linear;
  s.factor = 4;
  s.position_interpolation = 2;
  const auto scaled = rope_inv_freq(64, 10000, s);
  for (size_t d = 0; d < 32; ++d) EXPECT_DOUBLE_EQ(scaled[d], plain[d] / 8);
}

// Llama 3.1's published settings: short wavelengths kept, long ones divided by 8, a smooth ramp between.
TEST(Rope, Llama3Scaling) {
  RopeScaling s;
  s.type = RopeType::llama3;
  s.factor = 8;
  const auto plain = rope_inv_freq(128, 500000, {}), scaled = rope_inv_freq(128, 500000, s);
  for (size_t d = 0; d < 64; ++d) {
    const double wavelength = 2 * std::numbers::pi / plain[d];
    const double ramp = std::min(1.0, std::max(0.0, (8192 / wavelength - 1) / 3));
    EXPECT_NEAR(scaled[d] / plain[d], ramp + (1 - ramp) / 8, 1e-12) << d;
  }
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 8);
}

TEST(Rope, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Shape s = {500, 2, 64};
    return rotated(DType::f32, s, Array::normal(DType::f32, 64000, 1), positions_up_to(500, 4000), rope_inv_freq(64, 10000, {}));
  });
}

TEST(Rope, RefusesWrongArguments) {
  EXPECT_EQ(error_of([] { rope_inv_freq(7, 10000, {}); }), "rope: head_dim must be even, got 7");
  EXPECT_EQ(error_of([] { rope_inv_freq(8, 0, {}); }), "rope_theta must be > 0, got 0");
  RopeScaling s;
  s.position_interpolation = 0;
  EXPECT_EQ(error_of([&] { rope_inv_freq(8, 10000, s); }), "rope_scaling.position_interpolation must be > 0, got 0");
  RopeArgs a;
  a.head_dim = 3;
  EXPECT_EQ(error_of([&] { rope(a); }), "rope: head_dim must be even, got 3");
}

}  // namespace
}  // namespace moba::test
