#include "kernels/rms_norm/rms_norm.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{0, 8}, {1, 1}, {3, 5}, {17, 33}, {130, 64}, {257, 131}, {5, 2053}};
constexpr double kEps = 1e-5;

struct Forward {
  Array sum, y, rstd;
  Forward(DType dtype, const Shape& s, const Array& x, const Array* residual, const Array& weight)
      : sum(dtype, s.rows * s.cols), y(dtype, s.rows * s.cols), rstd(accumulator(dtype), s.rows) {
    RmsNormArgs a;
    a.dtype = dtype;
    a.rows = s.rows;
    a.cols = s.cols;
    a.eps = kEps;
    a.x = x.data();
    a.weight = weight.data();
    a.y = y.data();
    a.rstd = rstd.data();
    if (residual) a.residual = residual->data(), a.sum_out = sum.data();
    rms_norm_forward(a);
  }
};

struct Backward {
  Array dx, dweight;
  Backward(DType dtype, const Shape& s, const Array& x, const Array& weight, const Array& rstd, const Array& dy, const Array* dsum,
           const Array& dweight_before)
      : dx(dtype, s.rows * s.cols), dweight(dweight_before) {
    RmsNormGradArgs a;
    a.dtype = dtype;
    a.rows = s.rows;
    a.cols = s.cols;
    a.x = x.data();
    a.weight = weight.data();
    a.rstd = rstd.data();
    a.dy = dy.data();
    a.dsum = dsum ? dsum->data() : nullptr;
    a.dx = dx.data();
    a.dweight = dweight.data();
    rms_norm_backward(a);
  }
};

double own_rstd(const std::vector<double>& x, size_t row, size_t cols) {
  double squares = 0;
  for (size_t i = 0; i < cols; ++i) squares += x[row * cols + i] * x[row * cols + i];
  return 1 / std::sqrt(squares / static_cast<double>(cols) + kEps);
}

TEST(RmsNorm, ForwardEqualsOwnLoop) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes) {
      const Array x = Array::normal(dtype, s.rows * s.cols, 1), w = Array::normal(dtype, s.cols, 2);
      const Forward got(dtype, s, x, nullptr, w);
      const auto xv = x.values(), wv = w.values();
      const auto cols = static_cast<size_t>(s.cols);
      std::vector<double> want_y, want_rstd;
      for (size_t r = 0; r < static_cast<size_t>(s.rows); ++r) {
        want_rstd.push_back(own_rstd(xv, r, cols));
        for (size_t i = 0; i < cols; ++i) want_y.push_back(xv[r * cols + i] * want_rstd.back() * wv[i]);
      }
      EXPECT_CLOSE_RMS(got.y.values(), want_y, tolerance(dtype));
      EXPECT_CLOSE_RMS(got.rstd.values(), want_rstd, tolerance(accumulator(dtype)));
      EXPECT_TRUE(got.y.guards_intact() && got.rstd.guards_intact());
    }
  });
}

// With a residual the stored (rounded) sum is what gets normalised.
TEST(RmsNorm, ResidualIsAddedThenNormalised) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes) {
      const Array x = Array::normal(dtype, s.rows * s.cols, 1), residual = Array::normal(dtype, s.rows * s.cols, 3),
                  w = Array::normal(dtype, s.cols, 2);
      const Forward got(dtype, s, x, &residual, w);
      std::vector<double> want_sum = x.values(), r = residual.values();
      for (size_t i = 0; i < r.size(); ++i) want_sum[i] += r[i];
      EXPECT_CLOSE_RMS(got.sum.values(), want_sum, tolerance(dtype));
      const Forward of_sum(dtype, s, got.sum, nullptr, w);
      EXPECT_TRUE(same_bits("y", got.y.data(), of_sum.y.data(), got.y.size_bytes()));
      EXPECT_TRUE(got.sum.guards_intact());
    }
  });
}

TEST(RmsNorm, BackwardEqualsOwnLoop) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes)
      for (bool with_dsum : {false, true}) {
        const int64_t n = s.rows * s.cols;
        const Array x = Array::normal(dtype, n, 1), w = Array::normal(dtype, s.cols, 2), dy = Array::normal(dtype, n, 3),
                    dsum = Array::normal(dtype, n, 4);
        const Array before = Array::normal(accumulator(dtype), s.cols, 5);
        const Forward forward(dtype, s, x, nullptr, w);
        const Backward got(dtype, s, x, w, forward.rstd, dy, with_dsum ? &dsum : nullptr, before);
        const auto xv = x.values(), wv = w.values(), dv = dy.values(), ds = dsum.values();
        const auto cols = static_cast<size_t>(s.cols);
        std::vector<double> want_dx(xv.size()), want_dw = before.values();
        for (size_t r = 0; r < static_cast<size_t>(s.rows); ++r) {
          const double rstd = own_rstd(xv, r, cols);
          double dot = 0;
          for (size_t i = r * cols; i < (r + 1) * cols; ++i) dot += dv[i] * wv[i - r * cols] * xv[i] * rstd / static_cast<double>(cols);
          for (size_t i = r * cols; i < (r + 1) * cols; ++i) {
            want_dx[i] = rstd * (dv[i] * wv[i - r * cols] - xv[i] * rstd * dot) + (with_dsum ? ds[i] : 0);
            want_dw[i - r * cols] += dv[i] * xv[i] * rstd;
          }
        }
        EXPECT_CLOSE_RMS(got.dx.values(), want_dx,
                         s.cols == 1 && dtype != DType::f64 ? 1e-2 : tolerance(dtype));  // one column: g - x*... cancels
        EXPECT_CLOSE_RMS(got.dweight.values(), want_dw, tolerance(accumulator(dtype)));
        EXPECT_TRUE(got.dx.guards_intact() && got.dweight.guards_intact());
      }
  });
}

TEST(RmsNorm, NanStaysInItsRow) {
  for_each_isa_and_dtype([](DType dtype) {
    const Shape s = {5, 40};
    Array x = Array::normal(dtype, 200, 1);
    x.set(2 * 40 + 7, std::numeric_limits<double>::quiet_NaN());
    const Forward got(dtype, s, x, nullptr, Array::normal(dtype, 40, 2));
    const auto y = got.y.values();
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 40 == 2);
  });
}

TEST(RmsNorm, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Shape s = {3000, 96};
    const Array x = Array::normal(DType::f32, s.rows * s.cols, 1), w = Array::normal(DType::f32, s.cols, 2),
                dy = Array::normal(DType::f32, s.rows * s.cols, 3);
    const Forward forward(DType::f32, s, x, nullptr, w);
    return Backward(DType::f32, s, x, w, forward.rstd, dy, nullptr, Array::zeros(DType::f32, s.cols)).dweight;
  });
}

TEST(RmsNorm, RefusesWrongArguments) {
  RmsNormArgs a;
  float x[4] = {};
  a.rows = 1;
  EXPECT_EQ(error_of([&] { rms_norm_forward(a); }), "rms_norm: rows must be >= 0 and cols >= 1, got 1 and 0");
  a.cols = 4;
  a.x = a.residual = a.weight = x;
  EXPECT_EQ(error_of([&] { rms_norm_forward(a); }), "rms_norm: residual needs sum_out");
}

}  // namespace
}  // namespace moba::test
