#include "src/data/packing.h"

#include <algorithm>
#include <set>

namespace moba {

PackingPlan plan_best_fit(std::span<const int64_t> document_offsets, int64_t capacity, TooLong too_long) {
  PackingPlan plan;
  const auto length = [&](int64_t document) { return document_offsets[document + 1] - document_offsets[document]; };
  std::vector<int64_t> order;
  for (int64_t d = 0; d + 1 < static_cast<int64_t>(document_offsets.size()); ++d) {
    const bool long_one = length(d) > capacity;
    if (long_one && too_long == TooLong::drop) {
      ++plan.dropped;
      continue;
    }
    plan.truncated += long_one;
    order.push_back(d);
  }
  std::ranges::stable_sort(order, std::greater<>{}, length);

  std::vector<int64_t> bin_of(order.size()), bin_size;
  std::set<std::pair<int64_t, int64_t>> room;  // (free tokens, bin)
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t tokens = std::min(length(order[i]), capacity);
    auto best = room.lower_bound({tokens, 0});
    int64_t free = capacity, bin = static_cast<int64_t>(bin_size.size());
    if (best != room.end()) {
      std::tie(free, bin) = *best;
      room.erase(best);
    } else {
      bin_size.push_back(0);
    }
    bin_of[i] = bin;
    ++bin_size[bin];
    if (free > tokens) room.insert({free - tokens, bin});
  }

  plan.bins.assign(1, 0);
  for (const int64_t size : bin_size) plan.bins.push_back(plan.bins.back() + size);
  plan.documents.resize(order.size());
  std::vector<int64_t> next(plan.bins.begin(), plan.bins.end() - 1);
  for (size_t i = 0; i < order.size(); ++i) plan.documents[next[bin_of[i]]++] = order[i];
  return plan;
}

}  // namespace moba
