#include "src/optim/ownership.h"

#include <algorithm>
#include <numeric>

namespace moba {

std::vector<int> assign_owners(const std::vector<int64_t>& elements, int ranks) {
  std::vector<size_t> order(elements.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return elements[a] > elements[b]; });
  std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
  std::vector<int> owners(elements.size());
  for (size_t i : order) {
    const auto least = std::ranges::min_element(load);
    *least += elements[i];
    owners[i] = static_cast<int>(least - load.begin());
  }
  return owners;
}

std::vector<int64_t> owned_elements(const std::vector<int64_t>& elements, const std::vector<int>& owners, int ranks) {
  std::vector<int64_t> out(static_cast<size_t>(ranks), 0);
  for (size_t i = 0; i < elements.size(); ++i) out[static_cast<size_t>(owners[i])] += elements[i];
  return out;
}

}  // namespace moba
