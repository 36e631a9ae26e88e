// One optimizer step: forward and backward of every micro-batch, clipping, update.
#pragma once
#include <span>
#include <vector>

#include "src/data/sampler.h"
#include "src/layers/transformer.h"
#include "src/optim/optimizer.h"
#include "src/train/run_plan.h"

namespace moba {

struct StepSettings {
  int64_t micro_batch_size = 1;  // sequences of one forward pass
  double grad_clip = 0;          // 0: none
};

struct StepResult {
  double loss = 0;       // mean over the counted targets of the whole global batch, before the update
  double grad_norm = 0;  // before clipping
  bool updated = false;  // false: loss or gradient was not finite, weights and moments are as before
};

std::vector<OptimizerParameter> optimizer_parameters(Transformer& model);

// Gradients of loss / counted targets over all samples, added up micro-batch by micro-batch. Returns the loss.
double accumulate_gradients(Transformer& model, const ForwardOptions& options, std::span<const Sample> samples, int64_t micro_batch_size);

// step: number of this update, from 1.
StepResult training_step(Transformer& model, Optimizer& optimizer, const std::vector<OptimizerParameter>& parameters,
                         std::span<const Sample> samples, const StepPlan& plan, const StepSettings& settings, int64_t step);

}  // namespace moba
