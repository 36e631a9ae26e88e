// Best-fit decreasing bin packing of whole documents. The plan depends only on the lengths and the capacity.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "src/data/sampler.h"

namespace moba {

struct PackingPlan {
  std::vector<int64_t> documents;  // document numbers, bin after bin
  std::vector<int64_t> bins;       // [bins + 1] offsets into `documents`
  int64_t dropped = 0, truncated = 0;
  int64_t count() const { return static_cast<int64_t>(bins.size()) - 1; }
};

// Longest documents first (ties: the lower number), each into the fullest bin that still takes it (ties: the older bin).
// Documents longer than `capacity` are left out or count as `capacity`.
PackingPlan plan_best_fit(std::span<const int64_t> document_offsets, int64_t capacity, TooLong too_long);

}  // namespace moba
