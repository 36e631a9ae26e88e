// One optimizer step: forward and backward of every micro-batch, sum over lanes and ranks, clipping, update.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "src/data/sampler.h"
#include "src/layers/transformer.h"
#include "src/train/data_parallel.h"
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

enum class StepPart : uint8_t { data, forward, backward, reduction, update };
// Called at the end of each part of a step, for benchmarks; may be empty.
using Lap = std::function<void(StepPart)>;

std::vector<OptimizerParameter> optimizer_parameters(Transformer& model);

// samples: this rank's of the step. Leaves in the parameters the gradients of loss / counted targets over the samples of all ranks
// (with ZeRO-1: in those this rank owns), and returns that loss.
double accumulate_gradients(Transformer& model, const ForwardOptions& options, std::span<const Sample> samples, int64_t micro_batch_size,
                            DataParallel& parallel, const Lap& lap = {});

// step: number of this update, from 1.
StepResult training_step(Transformer& model, Optimizer& optimizer, const std::vector<OptimizerParameter>& parameters,
                         std::span<const Sample> samples, const StepPlan& plan, const StepSettings& settings, int64_t step,
                         DataParallel& parallel, const Lap& lap = {});

}  // namespace moba
