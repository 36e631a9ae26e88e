#include "src/train/training_step.h"

#include <algorithm>
#include <cmath>

#include "src/train/batch.h"

namespace moba {

std::vector<OptimizerParameter> optimizer_parameters(Transformer& model) {
  std::vector<OptimizerParameter> out;
  for (const Parameter& p : model.parameters()) out.push_back({p.name, p.value, p.master, p.matrix, p.decay});
  return out;
}

double accumulate_gradients(Transformer& model, const ForwardOptions& options, std::span<const Sample> samples, int64_t micro_batch_size) {
  // The divisor is known before the first pass, so micro-batches simply add up: never a mean of means.
  const double scale = 1.0 / static_cast<double>(std::max<int64_t>(counted_targets(samples), 1));
  const auto step = static_cast<size_t>(micro_batch_size);
  double loss = 0;
  for (size_t first = 0; first < samples.size(); first += step) {
    const TokenBatch batch = pack_batch(samples.subspan(first, std::min(step, samples.size() - first)));
    const Variable part = model.loss(batch, options, scale);
    loss += part.value().item();
    backward(part);
  }
  return loss;
}

StepResult training_step(Transformer& model, Optimizer& optimizer, const std::vector<OptimizerParameter>& parameters,
                         std::span<const Sample> samples, const StepPlan& plan, const StepSettings& settings, int64_t step) {
  StepResult result;
  result.loss = accumulate_gradients(model, plan.forward, samples, settings.micro_batch_size);
  result.grad_norm = global_grad_norm(parameters);
  result.updated = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (result.updated) optimizer.step(step, plan.learning_rate, clip_factor(result.grad_norm, settings.grad_clip));
  for (const OptimizerParameter& p : parameters) p.value.zero_grad();
  return result;
}

}  // namespace moba
