#include "src/train/training_memory.h"

#include <algorithm>

#include "src/layers/memory.h"
#include "src/optim/ownership.h"

namespace moba {
namespace {

// Program and libraries, thread stacks, HDF5 and the prefetched samples (12 bytes a token, three global batches at most).
constexpr int64_t kProcessBytes = 40'000'000;
constexpr int64_t kMpiBytes = 80'000'000;  // Open MPI 4.1: library and shared memory between ranks
constexpr int64_t kPrefetchBytesPerToken = 3 * 12;

// Parameters of the rank that owns most.
int64_t most_owned_parameters(const Recipe& recipe) {
  const std::vector<int64_t> elements = parameter_elements(recipe.model);
  const auto ranks = static_cast<int>(recipe.data_ranks);
  return std::ranges::max(owned_elements(elements, assign_owners(elements, ranks), ranks));
}

}  // namespace

int64_t predicted_training_memory(const Recipe& recipe, DType dtype, const StepPlan& plan) {
  TrainingShape shape;
  shape.dtype = dtype;
  shape.sequence_length = plan.sequence_length;
  shape.micro_batch_size = recipe.micro_batch_size;
  shape.micro_batches = recipe.global_batch_tokens / (plan.sequence_length * recipe.micro_batch_size * recipe.data_ranks);
  shape.lanes = recipe.lanes / recipe.data_ranks;
  shape.ranks = recipe.data_ranks;
  if (recipe.zero_stage > 0 && recipe.data_ranks > 1) shape.owned_parameters = most_owned_parameters(recipe);
  shape.checkpoint_blocks = recipe.checkpoint_blocks;
  shape.muon = recipe.optimizer.name == OptimizerConfig::Name::muon;
  shape.layers = plan.forward.layers;
  const int64_t prefetched = kPrefetchBytesPerToken * recipe.global_batch_tokens / recipe.data_ranks;
  return training_memory(recipe.model, shape).total() + kProcessBytes + (recipe.data_ranks > 1 ? kMpiBytes : 0) + prefetched;
}

}  // namespace moba
