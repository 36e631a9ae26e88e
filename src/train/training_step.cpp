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

double accumulate_gradients(Transformer& model, const ForwardOptions& options, std::span<const Sample> samples, int64_t micro_batch_size,
                            DataParallel& parallel, const Lap& lap) {
  const auto done = [&lap](StepPart part) {
    if (lap) lap(part);
  };
  // The divisor is known before the first pass, so micro-batches simply add up: never a mean of means.
  const int64_t counted = parallel.sum(counted_targets(samples), "counted targets");
  const double scale = 1.0 / static_cast<double>(std::max<int64_t>(counted, 1));
  const int64_t micro_batches = static_cast<int64_t>(samples.size()) / micro_batch_size * parallel.ranks().size();
  const int64_t lanes = parallel.lanes_here();
  std::vector<double> losses;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    double loss = 0;
    const IndexRange range = parallel.micro_batches(lane, micro_batches);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const TokenBatch batch =
          pack_batch(samples.subspan(static_cast<size_t>(i * micro_batch_size), static_cast<size_t>(micro_batch_size)));
      done(StepPart::data);
      const Variable part = model.loss(batch, options, scale);
      loss += part.value().item();
      done(StepPart::forward);
      if (lane + 1 == lanes && i + 1 == range.end) parallel.gradients().begin_last_pass();
      backward(part);
      done(StepPart::backward);
    }
    losses.push_back(loss);
    parallel.gradients().lane_done();
  }
  parallel.gradients().finish();
  const double loss = parallel.total_loss(losses);
  done(StepPart::reduction);
  return loss;
}

StepResult training_step(Transformer& model, Optimizer& optimizer, const std::vector<OptimizerParameter>& parameters,
                         std::span<const Sample> samples, const StepPlan& plan, const StepSettings& settings, int64_t step,
                         DataParallel& parallel, const Lap& lap) {
  StepResult result;
  result.loss = accumulate_gradients(model, plan.forward, samples, settings.micro_batch_size, parallel, lap);
  result.grad_norm = parallel.grad_norm();
  result.updated = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (result.updated) optimizer.step(step, plan.learning_rate, clip_factor(result.grad_norm, settings.grad_clip));
  for (const OptimizerParameter& p : parameters) p.value.zero_grad();
  if (lap) lap(StepPart::update);
  return result;
}

}  // namespace moba
