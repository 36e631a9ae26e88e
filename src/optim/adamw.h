#pragma once
#include "src/optim/optimizer.h"

namespace moba {

// AdamW with decoupled weight decay (arXiv 1711.05101); kernels/adamw has the formula. One fused pass per parameter, which also
// writes a bf16 compute copy. Parameters without a gradient in a step are left alone.
class Adamw final : public Optimizer {
 public:
  Adamw(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters);
  void step(int64_t step, double lr, double grad_scale) override;
  std::vector<State> state() const override;

 private:
  struct Entry {
    OptimizerParameter parameter;
    Tensor exp_avg, exp_avg_sq;
  };
  const OptimizerConfig config_;
  std::vector<Entry> entries_;
};

}  // namespace moba
