// AdamW and Muon against plain fp64 formulas; compute copies, state names, threads.
#include "src/optim/optimizer.h"

#include <algorithm>
#include <map>

#include "kernels/common/threads.h"
#include "src/autograd/rng.h"
#include "src/optim/muon.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

std::vector<double> values(const Tensor& t) { return widen(t.raw(), t.dtype(), t.numel()); }

Tensor random(Shape shape, uint64_t seed, double deviation = 1) {
  Tensor t = Tensor::empty(std::move(shape), DType::f32);
  fill_normal(t, 0, deviation, seed, 0);
  return t;
}

OptimizerParameter parameter(std::string name, Shape shape, DType dtype, bool matrix, bool decay) {
  const Tensor master = random(std::move(shape), hash_name(name), 0.5);
  return {name, Variable(master.to(dtype), true, name), master, matrix, decay};
}

void set_grad(const OptimizerParameter& p, uint64_t seed) {
  p.value.zero_grad();
  p.value.add_grad(random(p.master.shape(), seed));
}

struct PlainAdamw {
  std::vector<double> w, m, v;
  void step(const std::vector<double>& g, int t, double lr, double decay, double b1, double b2, double eps) {
    m.resize(w.size());
    v.resize(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] *= 1 - lr * decay;
      m[i] = b1 * m[i] + (1 - b1) * g[i];
      v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
      w[i] -= lr * (m[i] / (1 - std::pow(b1, t))) / (std::sqrt(v[i] / (1 - std::pow(b2, t))) + eps);
    }
  }
};

std::vector<double> scaled(std::vector<double> v, double factor) {
  for (double& x : v) x *= factor;
  return v;
}

TEST(Adamw, FiveStepsAgreeWithTheFormula) {
  for (bool decay : {false, true}) {
    const OptimizerParameter p = parameter("w", {7, 5}, DType::f32, true, decay);
    PlainAdamw plain{values(p.master), {}, {}};
    const OptimizerConfig c{.lr = 1e-2, .weight_decay = 0.3};
    const auto optimizer = make_optimizer(c, {p});
    for (int t = 1; t <= 5; ++t) {
      set_grad(p, 10 + static_cast<uint64_t>(t));
      optimizer->step(t, 1e-2 * t, 0.5);
      plain.step(scaled(values(p.value.grad()), 0.5), t, 1e-2 * t, decay ? 0.3 : 0, c.beta1, c.beta2, c.eps);
      EXPECT_CLOSE_RMS(values(p.master), plain.w, 1e-6);
    }
    EXPECT_CLOSE_RMS(values(optimizer->state()[0].value), plain.m, 1e-6);
    EXPECT_CLOSE_RMS(values(optimizer->state()[1].value), plain.v, 1e-6);
  }
}

// With a constant gradient the first step moves every weight by lr (eps aside), whatever the gradient's size.
TEST(Adamw, FirstStepHasTheSizeOfTheLearningRate) {
  const OptimizerParameter p = parameter("w", {64}, DType::f32, false, false);
  const auto before = values(p.master);
  set_grad(p, 3);
  make_optimizer({}, {p})->step(1, 0.125, 1e-3);
  const auto after = values(p.master), g = values(p.value.grad());
  for (size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(after[i], before[i] - std::copysign(0.125, g[i]), 1e-3) << i;
}

class EveryOptimizer : public ::testing::TestWithParam<OptimizerConfig::Name> {
 protected:
  OptimizerConfig config_{.name = GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Names, EveryOptimizer, ::testing::Values(OptimizerConfig::Name::adamw, OptimizerConfig::Name::muon));

TEST_P(EveryOptimizer, WritesComputeCopies) {
  for (bool matrix : {false, true}) {
    const OptimizerParameter p = parameter("w", {9, 33}, DType::bf16, matrix, true);
    set_grad(p, 5);
    const auto old = values(p.master);
    make_optimizer(config_, {p})->step(1, 1e-2, 1);
    EXPECT_NE(values(p.master), old);
    EXPECT_EQ(values(p.value.value()), values(p.master.to(DType::bf16)));
  }
}

TEST_P(EveryOptimizer, LeavesParametersWithoutGradientAlone) {
  const OptimizerParameter p = parameter("w", {9, 33}, DType::f32, true, true);
  const auto old = values(p.master);
  make_optimizer(config_, {p})->step(1, 1e-2, 1);
  EXPECT_EQ(values(p.master), old);
}

TEST_P(EveryOptimizer, SameBitsForAnyThreads) {
  const int threads = num_threads();
  std::vector<std::vector<float>> seen;
  for (int n : {1, 2, 4}) {
    set_num_threads(n);
    const std::vector<OptimizerParameter> all{parameter("a", {130, 70}, DType::f32, true, true),
                                              parameter("b", {40000}, DType::f32, false, true)};
    const auto optimizer = make_optimizer(config_, all);
    for (int t = 1; t <= 3; ++t) {
      for (const auto& p : all) set_grad(p, static_cast<uint64_t>(t));
      optimizer->step(t, 1e-2, clip_factor(global_grad_norm(all), 1));
    }
    seen.push_back(all[0].master.to_vector<float>());
    for (float w : all[1].master.to_vector<float>()) seen.back().push_back(w);
  }
  set_num_threads(threads);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

// Loading state into a fresh optimizer continues bit for bit.
TEST_P(EveryOptimizer, StateContinues) {
  const auto run = [&](bool reload) {
    const std::vector<OptimizerParameter> all{parameter("a", {6, 4}, DType::f32, true, true),
                                              parameter("b", {5}, DType::f32, false, false)};
    auto optimizer = make_optimizer(config_, all);
    for (int t = 1; t <= 4; ++t) {
      if (reload && t == 3) {
        auto fresh = make_optimizer(config_, all);
        std::map<std::string, Tensor> saved;
        for (const auto& s : optimizer->state()) saved[s.name] = s.value.clone();
        for (const auto& s : fresh->state()) s.value.copy_from(saved.at(s.name));
        optimizer = std::move(fresh);
      }
      for (const auto& p : all) set_grad(p, static_cast<uint64_t>(t));
      optimizer->step(t, 1e-2, 1);
    }
    return std::pair(all[0].master.to_vector<float>(), all[1].master.to_vector<float>());
  };
  EXPECT_EQ(run(false), run(true));
}

TEST(Optimizer, StateNames) {
  const auto names = [](OptimizerConfig::Name name) {
    std::vector<std::string> all;
    for (const auto& s :
         make_optimizer({.name = name}, {parameter("m", {2, 3}, DType::f32, true, true), parameter("e", {4}, DType::f32, false, false)})
             ->state())
      all.push_back(s.name);
    return all;
  };
  EXPECT_EQ(names(OptimizerConfig::Name::adamw), (std::vector<std::string>{"m.exp_avg", "m.exp_avg_sq", "e.exp_avg", "e.exp_avg_sq"}));
  EXPECT_EQ(names(OptimizerConfig::Name::muon), (std::vector<std::string>{"m.momentum_buffer", "e.exp_avg", "e.exp_avg_sq"}));
}

// ---- Muon ----

using Matrix = std::vector<std::vector<double>>;

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < b.size(); ++k)
      for (size_t j = 0; j < b[0].size(); ++j) c[i][j] += a[i][k] * b[k][j];
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  return t;
}

Matrix to_matrix(const std::vector<double>& v, int64_t rows, int64_t cols) {
  Matrix m;
  for (int64_t i = 0; i < rows; ++i) m.emplace_back(v.begin() + i * cols, v.begin() + (i + 1) * cols);
  return m;
}

std::vector<double> flat(const Matrix& m) {
  std::vector<double> v;
  for (const auto& row : m) v.insert(v.end(), row.begin(), row.end());
  return v;
}

// As in the published code: works on the wide orientation, transposing tall matrices.
Matrix plain_newton_schulz(Matrix x) {
  const bool tall = x.size() > x[0].size();
  if (tall) x = transposed(x);
  double norm = 0;
  for (double v : flat(x)) norm += v * v;
  for (auto& row : x)
    for (double& v : row) v /= std::sqrt(norm) + 1e-7;
  for (int step = 0; step < 5; ++step) {
    const Matrix a = product(x, transposed(x)), aa = product(a, a);
    Matrix b = a;
    for (size_t i = 0; i < a.size(); ++i)
      for (size_t j = 0; j < a.size(); ++j) b[i][j] = -4.7750 * a[i][j] + 2.0315 * aa[i][j];
    const Matrix bx = product(b, x);
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < x[0].size(); ++j) x[i][j] = 3.4445 * x[i][j] + bx[i][j];
  }
  return tall ? transposed(x) : x;
}

TEST(Muon, StepsAgreeWithAPlainImplementation) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{6, 6}, {4, 11}, {13, 5}, {1, 7}}) {
    const OptimizerParameter p = parameter("w", {rows, cols}, DType::f32, true, true);
    std::vector<double> w = values(p.master), buffer(w.size());
    const double lr = 0.02, decay = 0.1;
    const auto optimizer = make_optimizer({.name = OptimizerConfig::Name::muon, .weight_decay = decay}, {p});
    for (int t = 1; t <= 4; ++t) {
      set_grad(p, static_cast<uint64_t>(t));
      optimizer->step(t, lr, 0.5);
      const std::vector<double> g = scaled(values(p.value.grad()), 0.5);
      std::vector<double> u(w.size());
      for (size_t i = 0; i < w.size(); ++i) {
        buffer[i] = 0.95 * buffer[i] + g[i];
        u[i] = g[i] + 0.95 * buffer[i];
      }
      const std::vector<double> o = flat(plain_newton_schulz(to_matrix(u, rows, cols)));
      for (size_t i = 0; i < w.size(); ++i)
        w[i] = w[i] * (1 - lr * decay) - lr * 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols))) * o[i];
      EXPECT_CLOSE_RMS(values(p.master), w, 1e-5) << rows << "x" << cols << " step " << t;
    }
  }
}

// Five steps bring every singular value of a well-conditioned matrix near 1: O O^T is near the identity.
TEST(Muon, UpdateIsNearlyOrthogonal) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{16, 64}, {64, 16}}) {
    const Tensor o = orthogonalized(random({rows, cols}, 7));
    const Matrix m = to_matrix(values(o), rows, cols), gram = rows < cols ? product(m, transposed(m)) : product(transposed(m), m);
    for (size_t i = 0; i < gram.size(); ++i)
      for (size_t j = 0; j < gram.size(); ++j) EXPECT_NEAR(gram[i][j], i == j ? 1 : 0, 0.45) << i << "," << j;
  }
}

TEST(Muon, ZeroGradientIsFinite) {
  const Tensor o = orthogonalized(Tensor::zeros({3, 4}, DType::f32));
  EXPECT_EQ(values(o), std::vector<double>(12, 0));
}

// ---- gradient norm and clipping ----

TEST(GradientNorm, OverAllParameters) {
  const OptimizerParameter a = parameter("a", {2}, DType::f32, false, false), b = parameter("b", {1}, DType::bf16, false, false);
  const OptimizerParameter without = parameter("c", {3}, DType::f32, false, false);
  a.value.add_grad(Tensor::from(std::vector<float>{3, 4}, {2}));
  b.value.add_grad(Tensor::from(std::vector<float>{12}, {1}));
  EXPECT_DOUBLE_EQ(global_grad_norm({a, b, without}), 13);
  b.value.grad().fill(std::nan(""));
  EXPECT_TRUE(std::isnan(global_grad_norm({a, b, without})));
}

TEST(GradientNorm, ClipFactor) {
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(1, 1), 1);
  EXPECT_DOUBLE_EQ(clip_factor(4, 1), 1 / (4 + 1e-6));
  EXPECT_EQ(clip_factor(100, 0), 1) << "0 means no clipping";
}

}  // namespace
}  // namespace moba::test
