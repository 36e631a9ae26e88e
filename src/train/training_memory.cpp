#include "src/train/training_memory.h"

#include "src/layers/memory.h"

namespace moba {
namespace {

// Program and libraries, thread stacks, HDF5 and the prefetched samples (12 bytes a token, three global batches at most).
constexpr int64_t kProcessBytes = 40'000'000;
constexpr int64_t kPrefetchBytesPerToken = 3 * 12;

}  // namespace

int64_t predicted_training_memory(const Recipe& recipe, DType dtype, const StepPlan& plan) {
  TrainingShape shape;
  shape.dtype = dtype;
  shape.sequence_length = plan.sequence_length;
  shape.micro_batch_size = recipe.micro_batch_size;
  shape.micro_batches = recipe.global_batch_tokens / (plan.sequence_length * recipe.micro_batch_size);
  shape.checkpoint_blocks = recipe.checkpoint_blocks;
  shape.muon = recipe.optimizer.name == OptimizerConfig::Name::muon;
  shape.layers = plan.forward.layers;
  return training_memory(recipe.model, shape).total() + kProcessBytes + kPrefetchBytesPerToken * recipe.global_batch_tokens;
}

}  // namespace moba
