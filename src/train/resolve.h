// What `auto` means on this machine, decided once and written into the recipe's tree.
#pragma once
#include <string>

#include "src/train/recipe.h"

namespace moba {

struct ResolvedPrecision {
  DType dtype = DType::f32;
  std::string why;  // "fp32 (this CPU has no bf16 products)"
};
ResolvedPrecision resolve_precision(Recipe& recipe);

// Fills micro_batch_size: the largest number of sequences that divides the global batch and keeps a forward pass within
// kAutoMicroBatchTokens, which is where longer passes stop being faster on a CPU, and leaves as many micro-batches as lanes. Whatever
// the number of ranks, so that the bits do not depend on it.
void resolve_micro_batch(Recipe& recipe);
inline constexpr int64_t kAutoMicroBatchTokens = 8192;

// Fills lanes: 8, or the most (a power of two) that the micro-batches of a step allow. That does not depend on the number of ranks, so
// that neither do the bits. Error if there are fewer lanes than ranks. After resolve_micro_batch.
void resolve_lanes(Recipe& recipe);

// --device auto|cpu|cuda. Error if the build or the machine cannot.
Device resolve_device(const std::string& name);

}  // namespace moba
