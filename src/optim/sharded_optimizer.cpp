#include "src/optim/sharded_optimizer.h"

namespace moba {

ShardedOptimizer::ShardedOptimizer(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters, std::vector<int> owners,
                                   Communicator& ranks)
    : parameters_(std::move(parameters)), owners_(std::move(owners)), ranks_(ranks) {
  MOBA_ASSERT(parameters_.size() == owners_.size());
  std::vector<OptimizerParameter> own;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (owners_[i] == ranks_.rank()) own.push_back(parameters_[i]);
  own_ = make_optimizer(config, std::move(own));
}

void ShardedOptimizer::step(int64_t step, double lr, double grad_scale) {
  own_->step(step, lr, grad_scale);
  std::vector<Work> broadcasts;
  for (size_t i = 0; i < parameters_.size(); ++i)
    broadcasts.push_back(ranks_.broadcast(parameters_[i].value.value(), owners_[i], "updated weights"));
  for (const Work& work : broadcasts) work.wait();
}

std::vector<Optimizer::State> ShardedOptimizer::state() const { return own_->state(); }

}  // namespace moba
