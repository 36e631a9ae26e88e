// Which rank keeps what of a model: its share of a checkpoint, and with ZeRO-1 its optimizer state and fp32 masters.
#pragma once
#include <cstdint>
#include <vector>

namespace moba {

// Owner of each parameter: whole parameters, largest first, each to the rank that has least so far (ties: the lowest rank). Whole,
// because Muon's update needs the whole matrix.
std::vector<int> assign_owners(const std::vector<int64_t>& elements, int ranks);

// Elements that each rank owns, by rank.
std::vector<int64_t> owned_elements(const std::vector<int64_t>& elements, const std::vector<int>& owners, int ranks);

}  // namespace moba
