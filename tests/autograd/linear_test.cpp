// linear in every dtype, and the fused head.
#include "kernels/common/threads.h"
#include "src/autograd/ops.h"
#include "tests/support/gradcheck.h"

namespace moba::test {
namespace {

std::vector<double> values(const Tensor& t) { return widen(t.raw(), t.dtype(), t.numel()); }
Tensor rounded(const Tensor& t) { return t.to(DType::bf16).to(DType::f64); }

struct Result {
  std::vector<double> y, dx, dw;
};

// Two uses of one weight, so that its gradient accumulates.
Result run_linear(DType dtype, const Tensor& x, const Tensor& w) {
  const Variable xv(x.to(dtype), true), wv(w.to(dtype), true);
  const Variable y = ops::linear(xv, wv);
  backward(ops::sum(ops::multiply(y, y)));
  backward(ops::sum(ops::linear(xv, wv)));
  return {values(y.value()), values(xv.grad()), values(wv.grad())};
}

void expect_close(const Result& got, const Result& want, double tolerance) {
  EXPECT_CLOSE_RMS(got.y, want.y, tolerance);
  EXPECT_CLOSE_RMS(got.dx, want.dx, tolerance);
  EXPECT_CLOSE_RMS(got.dw, want.dw, tolerance);
}

TEST(Linear, AgreesWithFp64) {
  const Tensor x = rounded(random({37, 48}, 1)), w = rounded(random({29, 48}, 2));
  const Result want = run_linear(DType::f64, x, w);
  expect_close(run_linear(DType::f32, x, w), want, 1e-5);
  expect_close(run_linear(DType::bf16, x, w), want, 1e-2);
}

// No derived form of a weight is kept: values written in place count at once, in both directions.
TEST(Linear, UsesTheWeightAsItIs) {
  const Variable x(random({4, 8}, 1, 1, DType::f32), true), w(random({6, 8}, 2, 1, DType::f32));
  const Variable before = ops::linear(x, w);
  w.value().fill(0);
  EXPECT_EQ(values(ops::linear(x, w).value()), std::vector<double>(24, 0));
  backward(ops::sum(before));
  EXPECT_EQ(values(x.grad()), std::vector<double>(32, 0));
}

TEST(Linear, WeightGradientGoesIntoTheSameBuffer) {
  const Variable x(random({4, 8}, 1, 1, DType::bf16)), w(random({6, 8}, 2, 1, DType::bf16), true);
  backward(ops::sum(ops::linear(x, w)));
  const void* buffer = w.grad().raw();
  const auto once = values(w.grad());
  backward(ops::sum(ops::linear(x, w)));
  EXPECT_EQ(w.grad().raw(), buffer);
  EXPECT_EQ(w.grad().dtype(), DType::f32);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_FLOAT_EQ(static_cast<float>(values(w.grad())[i]), static_cast<float>(2 * once[i]));
}

TEST(Linear, ShapeMismatchIsAnError) {
  const Variable x(random({4, 8}, 1)), w(random({6, 7}, 2));
  EXPECT_THROW(ops::linear(x, w), Error);
  EXPECT_THROW(ops::linear(x, Variable(random({6, 8}, 2, 1, DType::f32))), Error);
}

// ---- the fused head ----

struct HeadCase {
  Tensor x, w, targets;  // [T, C] and [V, C] f64
};

HeadCase head_case(int64_t tokens, int64_t cols, int64_t vocab) {
  std::vector<int32_t> targets;
  Rng rng(3);
  for (int64_t t = 0; t < tokens; ++t) targets.push_back(t % 11 == 2 ? -1 : static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
  return {rounded(random({tokens, cols}, 1)), rounded(random({vocab, cols}, 2, 0.3)), Tensor::from(targets, {tokens})};
}

struct HeadResult {
  double loss;
  std::vector<double> dx, dw, token_losses;
};

// Plain: all logits at once, in fp64, sharing nothing with the op but the definition.
HeadResult plain_head(const HeadCase& c, double scale) {
  const int64_t tokens = c.x.size(0), cols = c.x.size(1), vocab = c.w.size(0);
  HeadResult r{0, std::vector<double>(static_cast<size_t>(tokens * cols)), std::vector<double>(static_cast<size_t>(vocab * cols)), {}};
  const double *x = c.x.data<double>(), *w = c.w.data<double>();
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t target = c.targets.data<int32_t>()[t];
    std::vector<double> p;
    double total = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      double logit = 0;
      for (int64_t i = 0; i < cols; ++i) logit += x[t * cols + i] * w[v * cols + i];
      p.push_back(std::exp(logit));
      total += p.back();
    }
    r.token_losses.push_back(target < 0 ? 0 : std::log(total) - std::log(p[static_cast<size_t>(target)]));
    r.loss += scale * r.token_losses.back();
    if (target < 0) continue;
    for (int64_t v = 0; v < vocab; ++v) {
      const double d = scale * (p[static_cast<size_t>(v)] / total - (v == target));
      for (int64_t i = 0; i < cols; ++i) {
        r.dx[static_cast<size_t>(t * cols + i)] += d * w[v * cols + i];
        r.dw[static_cast<size_t>(v * cols + i)] += d * x[t * cols + i];
      }
    }
  }
  return r;
}

TEST(Head, AgreesWithPlainInEveryDtype) {
  const HeadCase c = head_case(45, 16, 67);
  const HeadResult want = plain_head(c, 1.0 / 41);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const double tolerance = dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 1e-5 : 1e-2;
    const Variable x(c.x.to(dtype), true), w(c.w.to(dtype), true);
    Tensor token_losses;
    const Variable loss = ops::linear_cross_entropy(x, w, c.targets, 1.0 / 41, &token_losses);
    EXPECT_EQ(loss.dtype(), DType::f64);
    EXPECT_NEAR(loss.value().item(), want.loss, 3 * tolerance);
    EXPECT_CLOSE_RMS(values(token_losses), want.token_losses, tolerance);
    EXPECT_FALSE(w.has_grad()) << "nothing before backward";
    backward(loss);
    EXPECT_CLOSE_RMS(values(x.grad()), want.dx, tolerance);
    EXPECT_CLOSE_RMS(values(w.grad()), want.dw, tolerance);
    EXPECT_EQ(w.grad().dtype(), dtype == DType::f64 ? DType::f64 : DType::f32);
  }
}

// Vocabulary so large that the tokens fall into several chunks, the last one short.
TEST(Head, SeveralChunks) {
  const HeadCase c = head_case(40, 4, 400000);
  const HeadResult want = plain_head(c, 0.5);
  const Variable x(c.x.to(DType::f32), true), w(c.w.to(DType::f32), true);
  reset_peak_memory();
  const int64_t before = memory_stats().allocated;
  const Variable loss = ops::linear_cross_entropy(x, w, c.targets, 0.5);
  EXPECT_LT(memory_stats().peak_allocated - before, int64_t{40} * 400000 * 4) << "all logits at once";
  backward(loss);
  EXPECT_NEAR(loss.value().item(), want.loss, 1e-5 * want.loss);
  EXPECT_CLOSE_RMS(values(x.grad()), want.dx, 1e-5);
  EXPECT_CLOSE_RMS(values(w.grad()), want.dw, 1e-5);
}

TEST(Head, AnyIncomingGradientAndUnusedLosses) {
  const HeadCase c = head_case(12, 8, 11);
  const HeadResult want = plain_head(c, 1);
  const Variable x(c.x, true), w(c.w, true);
  const Variable unused = ops::linear_cross_entropy(x, w, c.targets, 1);
  const Variable loss = ops::linear_cross_entropy(x, w, c.targets, 1);
  backward(ops::scale(loss, 2));
  std::vector<double> dx = want.dx, dw = want.dw;
  for (auto* g : {&dx, &dw})
    for (double& v : *g) v *= 2;
  EXPECT_CLOSE_RMS(values(x.grad()), dx, 1e-12);
  EXPECT_CLOSE_RMS(values(w.grad()), dw, 1e-12);
}

// Few counted targets (gathered rows) and none at all.
TEST(Head, MostlyUncountedTargets) {
  for (const std::vector<int32_t>& counted : std::vector<std::vector<int32_t>>{{}, {0}, {3, 4, 9, 11}}) {
    HeadCase c = head_case(12, 8, 11);
    c.targets.fill(-1);
    for (int32_t t : counted) c.targets.data<int32_t>()[t] = t % 11;
    const HeadResult want = plain_head(c, 0.5);
    const Variable x(c.x, true), w(c.w, true);
    Tensor token_losses;
    const Variable loss = ops::linear_cross_entropy(x, w, c.targets, 0.5, &token_losses);
    backward(loss);
    EXPECT_NEAR(loss.value().item(), want.loss, 1e-12);
    EXPECT_CLOSE_RMS(values(token_losses), want.token_losses, 1e-12);
    EXPECT_CLOSE_RMS(values(x.grad()), want.dx, 1e-12);
    EXPECT_CLOSE_RMS(values(w.grad()), want.dw, 1e-12);
  }
}

TEST(Head, AccumulatesOverMicroBatchesAndWithATiedEmbedding) {
  const HeadCase c = head_case(12, 8, 11);
  const Tensor ids = Tensor::from(std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0}, {12});
  const auto fn = [&](const std::vector<Variable>& v) {
    const Variable first = ops::linear_cross_entropy(ops::embedding(v[0], ids), v[0], c.targets, 0.5);
    return ops::add(first, ops::linear_cross_entropy(ops::scale(ops::embedding(v[0], ids), 0.3), v[0], c.targets, 0.5));
  };
  EXPECT_TRUE(gradcheck(fn, {c.w}));
}

TEST(Head, WithoutGradientsNothingIsKept) {
  const HeadCase c = head_case(12, 8, 4000);
  const Variable x(c.x, true), w(c.w, true);
  const NoGrad no_grad;
  const int64_t before = memory_stats().allocated;
  reset_peak_memory();
  const Variable loss = ops::linear_cross_entropy(x, w, c.targets, 1);
  EXPECT_FALSE(loss.requires_grad());
  EXPECT_LE(memory_stats().allocated, before + 64);
  EXPECT_LE(memory_stats().peak_allocated, before + 12 * 4000 * 8 + 1000) << "one chunk of logits, no gradient of W";
}

// Every op of a block and the head, shapes large enough to be cut into pieces.
TEST(Ops, SameBitsForAnyThreads) {
  const int threads = num_threads();
  const HeadCase c = head_case(300, 96, 130);
  std::vector<int32_t> ids, positions;
  for (int32_t t = 0; t < 300; ++t) ids.push_back(t * 7 % 130), positions.push_back(t);
  const Tensor id = Tensor::from(ids, {300}), position = Tensor::from(positions, {300}),
               cu = Tensor::from(std::vector<int32_t>{0, 120, 300}, {3});
  const Tensor inv_freq = Tensor::from(kernels::rope_inv_freq(32, 10000, {}), {16});
  for (DType dtype : {DType::f32, DType::bf16}) {
    std::vector<std::vector<double>> seen;
    for (int n : {1, 2, 4}) {
      set_num_threads(n);
      const Variable table(c.w.to(dtype), true), norm(random({96}, 5).to(dtype), true), w(random({96, 96}, 6, 0.1).to(dtype), true),
          conv(random({96, 3}, 7).to(dtype), true);
      const Variable x = ops::embedding(table, id);
      const Variable k = ops::key_conv(ops::linear(ops::rms_norm(x, norm, 1e-5), w), conv, cu);
      const Variable turned = ops::reshape(ops::rope(ops::reshape(k, {300, 3, 32}), position, inv_freq), {300, 96});
      const auto [sum, normed] = ops::add_rms_norm(turned, x, norm, 1e-5);
      backward(ops::linear_cross_entropy(ops::add(sum, ops::swiglu(ops::linear(normed, w), normed)), table, c.targets, 1.0 / 300));
      std::vector<double> all;
      for (const Variable& v : {table, norm, w, conv})
        for (double g : values(v.grad())) all.push_back(g);
      seen.push_back(all);
    }
    EXPECT_TRUE(same_bits("2 threads", seen[1].data(), seen[0].data(), seen[0].size() * 8)) << dtype_name(dtype);
    EXPECT_TRUE(same_bits("4 threads", seen[2].data(), seen[0].data(), seen[0].size() * 8)) << dtype_name(dtype);
  }
  set_num_threads(threads);
}

}  // namespace
}  // namespace moba::test
