// ZeRO-1 (arXiv 1910.02054, stage 1): each rank keeps optimizer state and fp32 masters of the parameters it owns, updates those, and
// hands the new compute copies to the others.
#pragma once
#include "src/distributed/communicator.h"
#include "src/optim/optimizer.h"

namespace moba {

class ShardedOptimizer final : public Optimizer {
 public:
  // owners[i]: rank that owns parameters[i].
  ShardedOptimizer(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters, std::vector<int> owners, Communicator& ranks);
  // Collective. Gradients of parameters that this rank does not own are not read.
  void step(int64_t step, double lr, double grad_scale) override;
  std::vector<State> state() const override;  // of the owned parameters

 private:
  std::vector<OptimizerParameter> parameters_;
  std::vector<int> owners_;
  Communicator& ranks_;
  std::unique_ptr<Optimizer> own_;
};

}  // namespace moba
