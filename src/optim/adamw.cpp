#include "src/optim/adamw.h"

#include "kernels/adamw/adamw.h"
#include "src/optim/compute_copy.h"

namespace moba {

Adamw::Adamw(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters) : config_(config) {
  for (auto& p : parameters) {
    const Tensor w = p.master;
    entries_.push_back({std::move(p), Tensor::zeros(w.shape(), w.dtype(), w.device()), Tensor::zeros(w.shape(), w.dtype(), w.device())});
  }
}

void Adamw::step(int64_t step, double lr, double grad_scale) {
  for (const auto& [p, exp_avg, exp_avg_sq] : entries_) {
    if (!p.value.has_grad()) continue;
    const Tensor &w = p.master, &g = p.value.grad(), &copy = p.value.value();
    MOBA_ASSERT(g.dtype() == w.dtype() && g.numel() == w.numel());
    const bool fused_copy = copy.dtype() == DType::bf16;
    kernels::adamw({.stream = w.stream(),
                    .dtype = w.dtype(),
                    .n = w.numel(),
                    .weight = w.raw(),
                    .grad = g.raw(),
                    .m = exp_avg.raw(),
                    .v = exp_avg_sq.raw(),
                    .copy = fused_copy ? copy.data<bf16>() : nullptr,
                    .lr = lr,
                    .beta1 = config_.beta1,
                    .beta2 = config_.beta2,
                    .eps = config_.eps,
                    .weight_decay = p.decay ? config_.weight_decay : 0,
                    .step = step,
                    .grad_scale = grad_scale});
    detail::master_changed(p, fused_copy);
  }
}

std::vector<Optimizer::State> Adamw::state() const {
  std::vector<State> all;
  for (const auto& e : entries_) {
    all.push_back({e.parameter.name + ".exp_avg", e.exp_avg});
    all.push_back({e.parameter.name + ".exp_avg_sq", e.exp_avg_sq});
  }
  return all;
}

}  // namespace moba
