#pragma once
#include "src/optim/adamw.h"

namespace moba {

// Muon (K. Jordan 2024; scaling of the update as in "Muon is Scalable", arXiv 2502.16982) for the matrices inside blocks, AdamW
// with the same learning rate for everything else:
//   B = 0.95 B + G;  U = G + 0.95 B (Nesterov);  O = five Newton-Schulz steps on U / |U|_F
//   W = W (1 - lr * weight_decay) - lr * 0.2 * sqrt(max(rows, cols)) * O
class Muon final : public Optimizer {
 public:
  Muon(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters);
  void step(int64_t step, double lr, double grad_scale) override;
  std::vector<State> state() const override;

 private:
  struct Entry {
    OptimizerParameter parameter;
    Tensor momentum;
  };
  void update(const Entry& entry, double lr, double grad_scale) const;
  const OptimizerConfig config_;
  std::vector<Entry> entries_;
  std::unique_ptr<Adamw> rest_;
};

// Nearly orthogonal factor of u [rows, cols] (f32 or f64): singular values brought into about [0.7, 1.2]. u is overwritten.
Tensor orthogonalized(Tensor u);

}  // namespace moba
