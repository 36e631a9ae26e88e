#include "kernels/matmul/matmul.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct Shape {
  int64_t m, n, k;
};
// One element; rows and columns one off the register tiles (6, 14 x 8, 16, 32); K one off the depth of a block (256); more than
// one item (96 x 128) and more than one panel (2048) each way.
constexpr Shape kShapes[] = {{1, 1, 1},     {1, 17, 5},   {6, 16, 256},  {7, 33, 257},  {13, 15, 31},  {14, 32, 64},
                             {97, 129, 40}, {1, 2050, 9}, {2051, 1, 13}, {5, 64, 1030}, {100, 20, 600}};

struct Types {
  DType in, out;
};
constexpr Types kTypes[] = {{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}, {DType::f64, DType::f64}};

// Operands with rows `pad` elements longer than needed.
struct Operands {
  Shape s;
  Types types;
  bool transpose_a, transpose_b;
  int64_t lda, ldb, ldc;
  Array a, b, c;

  Operands(Shape shape, Types t, bool ta, bool tb, int64_t pad)
      : s(shape),
        types(t),
        transpose_a(ta),
        transpose_b(tb),
        lda((ta ? s.m : s.k) + pad),
        ldb((tb ? s.k : s.n) + pad),
        ldc(s.n + pad),
        a(Array::normal(t.in, (ta ? s.k : s.m) * lda, 1)),
        b(Array::normal(t.in, (tb ? s.n : s.k) * ldb, 2)),
        c(Array::normal(t.out, s.m * ldc, 3)) {}

  MatmulArgs args(Array& out, float alpha, float beta) const {
    MatmulArgs p;
    p.m = s.m, p.n = s.n, p.k = s.k;
    p.dtype = types.in, p.out_dtype = types.out;
    p.transpose_a = transpose_a, p.transpose_b = transpose_b;
    p.lda = lda, p.ldb = ldb, p.ldc = ldc;
    p.alpha = alpha, p.beta = beta;
    p.a = a.data(), p.b = b.data(), p.c = out.data();
    return p;
  }

  std::vector<double> want(float alpha, float beta) const {
    const auto av = a.values(), bv = b.values();
    auto cv = c.values();
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < s.k; ++k)
          sum += av[static_cast<size_t>(transpose_a ? k * lda + i : i * lda + k)] *
                 bv[static_cast<size_t>(transpose_b ? j * ldb + k : k * ldb + j)];
        double& out = cv[static_cast<size_t>(i * ldc + j)];
        out = alpha * sum + (beta == 0 ? 0 : beta * out);
      }
    return cv;  // with the untouched padding
  }
};

void for_each_product(Types types, const std::function<void(const Operands&)>& body) {
  for (const Shape& s : kShapes)
    for (bool ta : {false, true})
      for (bool tb : {false, true}) {
        SCOPED_TRACE(
            fmt::format("{} -> {} m {} n {} k {} transpose {} {}", dtype_name(types.in), dtype_name(types.out), s.m, s.n, s.k, ta, tb));
        body(Operands(s, types, ta, tb, (s.m + s.n) % 4));
      }
}

double allowed(Types t) { return t.out == DType::f32 ? 2e-6 : tolerance(t.out); }

TEST(Matmul, EqualsOwnLoop) {
  const OneThread alone;
  for (const Types& types : kTypes)
    for_each_product(types, [&](const Operands& o) {
      for (float beta : {0.0f, 1.0f, -0.5f}) {
        const float alpha = beta == 1 ? 1.0f : 0.75f;
        const auto want = o.want(alpha, beta);
        for_each_isa([&] {
          Array c = o.c;
          matmul(o.args(c, alpha, beta));
          EXPECT_CLOSE_RMS(c.values(), want, allowed(types));
          EXPECT_TRUE(c.guards_intact());
        });
      }
    });
}

// beta 0 must not read C: it may hold NaN.
TEST(Matmul, BetaZeroIgnoresWhatWasThere) {
  for_each_isa([] {
    for (const Types& types : kTypes) {
      const Operands o({37, 41, 300}, types, true, false, 0);
      Array c(types.out, 37 * 41);
      for (int64_t i = 0; i < c.size(); ++i) c.set(i, std::numeric_limits<double>::quiet_NaN());
      matmul(o.args(c, 1, 0));
      EXPECT_CLOSE_RMS(c.values(), o.want(1, 0), allowed(types));
    }
  });
}

TEST(Matmul, EmptyDepthScalesC) {
  for_each_isa([] {
    Array c = Array(DType::f32, {1, 2, 3, 4});
    MatmulArgs p;
    p.m = p.n = 2;
    p.c = c.data();
    p.beta = 0.5f;
    matmul(p);
    EXPECT_EQ(c.values(), (std::vector<double>{0.5, 1, 1.5, 2}));
  });
}

// A NaN in one row of A stays in that row, in one row of B (a token) only where its column is used.
TEST(Matmul, NanStaysInItsRow) {
  for_each_isa([] {
    Operands o({50, 40, 300}, kTypes[0], false, true, 0);
    o.a.set(21 * 300 + 299, std::numeric_limits<double>::quiet_NaN());
    o.b.set(33 * 300 + 1, std::numeric_limits<double>::infinity());
    Array c(DType::f32, 2000);
    matmul(o.args(c, 1, 0));
    const auto v = c.values();
    for (size_t i = 0; i < v.size(); ++i) EXPECT_EQ(std::isfinite(v[i]), i / 40 != 21 && i % 40 != 33) << i;
  });
}

TEST(Matmul, SameBitsForAnyThreads) {
  for (const Types& types : kTypes)
    for (bool ta : {false, true})
      for (const Shape& s : {Shape{64, 64, 1100}, Shape{110, 140, 300}, Shape{1, 900, 300}, Shape{7, 2100, 20}}) {
        const Operands o(s, types, ta, !ta, 0);
        expect_same_bits_for_any_threads([&] {
          Array c = o.c;
          matmul(o.args(c, 1, 1));
          return c;
        });
      }
}

// A row alone gives the bits it gives among others: chunked prefill and decoding rely on it. Of the shapes one has more blocks of K than
// are packed at a time, one more rows than a panel, and one rows of A that share their sets of L1 (lda 1024).
TEST(Matmul, RowsDoNotDependOnTheirNeighbours) {
  const OneThread alone;
  if (has_bf16_products()) GTEST_SKIP() << "products by the CPU's bf16 instructions are cut by the number of rows";
  for_each_isa([] {
    for (const Types& types : kTypes)
      for (bool tb : {false, true})
        for (const Shape& s :
             {Shape{110, 150, 523}, Shape{100, 2100, 12}, Shape{110, 2050, 300}, Shape{2070, 20, 300}, Shape{110, 20, 1021}}) {
          const Operands all(s, types, false, tb, 3);
          Array many = all.c;
          matmul(all.args(many, 0.7f, -0.3f));
          const auto row_bytes = all.ldc * static_cast<int64_t>(dtype_size(types.out));
          for (int64_t row : {int64_t{0}, int64_t{5}, s.m - 8, s.m - 1}) {
            Array one = all.c;
            MatmulArgs p = all.args(one, 0.7f, -0.3f);
            p.m = 1;
            p.a = static_cast<const char*>(all.a.data()) + row * all.lda * static_cast<int64_t>(dtype_size(types.in));
            p.c = static_cast<char*>(one.data()) + row * row_bytes;
            matmul(p);
            EXPECT_TRUE(same_bits("row", p.c, static_cast<const char*>(many.data()) + row * row_bytes, static_cast<size_t>(row_bytes)))
                << dtype_name(types.in) << " transpose " << tb << " row " << row;
          }
        }
  });
}

TEST(Matmul, RefusesWrongArguments) {
  const auto message = [](const std::function<void(MatmulArgs&)>& change) {
    MatmulArgs p;
    float x[16] = {};
    p.m = p.n = p.k = 2;
    p.a = p.b = p.c = x;
    change(p);
    return error_of([&] { matmul(p); });
  };
  EXPECT_EQ(message([](MatmulArgs& p) { p.dtype = DType::i32; }), "matmul: dtype i32 is not supported; use f32, bf16 or f64");
  EXPECT_EQ(message([](MatmulArgs& p) { p.out_dtype = DType::bf16; }), "matmul: f32 operands cannot give bf16; use f32");
  EXPECT_EQ(message([](MatmulArgs& p) { p.lda = 1; }), "matmul: lda must be 0 (packed) or at least the row length 2, got 1");
  EXPECT_EQ(message([](MatmulArgs& p) { p.k = -1; }), "matmul: sizes must be >= 0, got m 2, n 2, k -1");
}

}  // namespace
}  // namespace moba::test
