// Predicted peak memory of training a model: a pure function of shapes (and of the kernels' own workspace rule). What a process
// holds besides (program, data, thread stacks) is the trainer's to add.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/common/types.h"
#include "src/layers/config.h"

namespace moba {

struct TrainingShape {
  DType dtype = DType::f32;  // of the model
  int64_t sequence_length = 0;
  int64_t micro_batch_size = 1;  // sequences per forward
  int64_t micro_batches = 1;     // per step and rank; above 1, gradients are held while the next forward runs
  int64_t lanes = 1;             // of this rank: log2(lanes) + 1 gradients are held
  int64_t ranks = 1;
  int64_t owned_parameters = -1;  // with ZeRO-1: whose optimizer state and masters this rank keeps; -1: all
  bool checkpoint_blocks = false;
  bool muon = false;                   // else AdamW
  std::vector<LayerAttention> layers;  // one per layer
};

// Bytes by part at the moment of the step where most is held.
struct MemoryEstimate {
  int64_t weights = 0;    // masters and compute copies
  int64_t optimizer = 0;  // moments, and workspace of the update if it is the peak
  int64_t gradients = 0;
  int64_t activations = 0;  // saved for backward, and gradients on their way
  int64_t head = 0;         // fused head and loss: chunk of logits, gradients held for backward
  int64_t attention_workspace = 0;
  int64_t allocator_slack = 0;  // blocks the caching allocator keeps beside those in use
  const char* moment = "";      // "loss", "backward", "update"
  int64_t tensors() const { return weights + optimizer + gradients + activations + head; }  // from the caching allocator
  int64_t total() const { return tensors() + attention_workspace + allocator_slack; }
};

MemoryEstimate training_memory(const TransformerConfig& config, const TrainingShape& shape);

// What one block keeps for backward, per forward of all its tokens, without checkpointing.
int64_t saved_block_bytes(const TransformerConfig& config, const TrainingShape& shape, const LayerAttention& layer);

}  // namespace moba
