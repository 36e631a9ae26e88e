#include "src/optim/muon.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/matmul/matmul.h"
#include "src/optim/compute_copy.h"

namespace moba {
namespace {

constexpr double kMomentum = 0.95;
constexpr double kUpdateScale = 0.2;  // RMS of an update comes out as AdamW's usually is
constexpr int kNewtonSchulzSteps = 5;
constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;  // quintic a x + b x^3 + c x^5, steep at 0
constexpr double kNormFloor = 1e-7;
constexpr int64_t kSmallMatrix = int64_t{1} << 20;  // elements

void scale_in_place(const Tensor& t, double factor) { kernels::scale(t.stream(), t.dtype(), t.numel(), factor, t.raw(), t.raw()); }
void accumulate(const Tensor& to, const Tensor& from) {
  kernels::accumulate(to.stream(), to.dtype(), from.dtype(), to.numel(), from.raw(), to.raw());
}

// c = alpha * op(a) op(b) + beta * c
void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& c, float alpha, float beta) {
  kernels::matmul({.stream = c.stream(),
                   .m = c.size(0),
                   .n = c.size(1),
                   .k = a.size(transpose_a ? 0 : 1),
                   .dtype = c.dtype(),
                   .out_dtype = c.dtype(),
                   .transpose_a = transpose_a,
                   .transpose_b = transpose_b,
                   .alpha = alpha,
                   .beta = beta,
                   .a = a.raw(),
                   .b = b.raw(),
                   .c = c.raw()});
}

}  // namespace

Tensor orthogonalized(Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1), small = std::min(rows, cols);
  const bool wide = rows <= cols;  // gram matrix on the small side: X X^T or X^T X
  scale_in_place(x, 1 / (std::sqrt(kernels::sum_of_squares(x.stream(), x.dtype(), x.numel(), x.raw())) + kNormFloor));
  const Tensor gram = Tensor::empty({small, small}, x.dtype(), x.device()), poly = Tensor::empty({small, small}, x.dtype(), x.device());
  Tensor next = Tensor::empty({rows, cols}, x.dtype(), x.device());
  for (int i = 0; i < kNewtonSchulzSteps; ++i) {
    product(x, !wide, x, wide, gram, 1, 0);
    poly.copy_from(gram);
    product(gram, false, gram, false, poly, kC, kB);  // b G + c G^2
    next.copy_from(x);
    if (wide)
      product(poly, false, x, false, next, 1, kA);
    else
      product(x, false, poly, false, next, 1, kA);
    std::swap(x, next);
  }
  return x;
}

Muon::Muon(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters) : config_(config) {
  std::vector<OptimizerParameter> rest;
  for (auto& p : parameters) {
    if (!p.matrix) {
      rest.push_back(std::move(p));
      continue;
    }
    MOBA_ASSERT(p.master.dim() == 2);
    const Tensor momentum = Tensor::zeros(p.master.shape(), p.master.dtype(), p.master.device());
    entries_.push_back({std::move(p), momentum});
  }
  rest_ = std::make_unique<Adamw>(config, std::move(rest));
}

void Muon::step(int64_t step, double lr, double grad_scale) {
  {
    // Small matrices one to a thread: inside one of them threads would mostly wait for each other.
    const ProfileScope profile("muon", {});
    std::vector<const Entry*> small, large;
    for (const Entry& e : entries_) {
      if (e.parameter.value.has_grad()) (e.momentum.numel() <= kSmallMatrix ? small : large).push_back(&e);
    }
    parallel_items(static_cast<int64_t>(small.size()), [&](int64_t i, int) { update(*small[static_cast<size_t>(i)], lr, grad_scale); });
    for (const Entry* e : large) update(*e, lr, grad_scale);
  }
  rest_->step(step, lr, grad_scale);
}

void Muon::update(const Entry& entry, double lr, double grad_scale) const {
  const auto& [p, momentum] = entry;
  const Tensor& g = p.value.grad();
  MOBA_ASSERT(g.dtype() == p.master.dtype() && g.numel() == p.master.numel());
  Tensor update = Tensor::empty(p.master.shape(), g.dtype(), g.device());
  kernels::scale(g.stream(), g.dtype(), g.numel(), grad_scale, g.raw(), update.raw());
  scale_in_place(momentum, kMomentum);
  accumulate(momentum, update);
  Tensor ahead = Tensor::empty(momentum.shape(), momentum.dtype(), momentum.device());
  kernels::scale(g.stream(), g.dtype(), g.numel(), kMomentum, momentum.raw(), ahead.raw());
  accumulate(update, ahead);
  ahead = Tensor();

  update = orthogonalized(std::move(update));
  scale_in_place(update, -lr * kUpdateScale * std::sqrt(static_cast<double>(std::max(update.size(0), update.size(1)))));
  if (p.decay) scale_in_place(p.master, 1 - lr * config_.weight_decay);
  accumulate(p.master, update);
  detail::master_changed(p, false);
}

std::vector<Optimizer::State> Muon::state() const {
  std::vector<State> all;
  for (const auto& e : entries_) all.push_back({e.parameter.name + ".momentum_buffer", e.momentum});
  for (auto& s : rest_->state()) all.push_back(std::move(s));
  return all;
}

}  // namespace moba
