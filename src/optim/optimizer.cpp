#include "src/optim/optimizer.h"

#include "src/optim/muon.h"

namespace moba {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters) {
  if (config.name == OptimizerConfig::Name::muon) return std::make_unique<Muon>(config, std::move(parameters));
  return std::make_unique<Adamw>(config, std::move(parameters));
}

}  // namespace moba
