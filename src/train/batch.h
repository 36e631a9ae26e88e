// Samples side by side as one packed batch.
#pragma once
#include <span>

#include "src/data/sampler.h"
#include "src/layers/transformer.h"

namespace moba {

// All samples' tokens in one row; each document piece of each sample is a sequence to attention.
TokenBatch pack_batch(std::span<const Sample> samples);
int64_t counted_targets(std::span<const Sample> samples);

}  // namespace moba
