#include "src/layers/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/common/check.h"

namespace moba {

int32_t greedy_token(std::span<const float> logits) {
  int64_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i]) && (best < 0 || logits[i] > logits[static_cast<size_t>(best)])) best = static_cast<int64_t>(i);
  if (best < 0) throw Error("generation: every logit is NaN, the weights are damaged", ExitCode::numeric);
  return static_cast<int32_t>(best);
}

int32_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform) {
  const double largest = logits[static_cast<size_t>(greedy_token(logits))];
  std::vector<double> weight(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weight[i] = std::isnan(logits[i]) ? 0 : std::exp((logits[i] - largest) / temperature);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return weight[static_cast<size_t>(a)] > weight[static_cast<size_t>(b)]; });

  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  const auto next = [&] { return weight[static_cast<size_t>(order[count])]; };
  // Where rounding keeps `kept` below the total, what has no weight stays out all the same.
  while (count < order.size() && (count == 0 || (kept < top_p * total && next() > 0))) kept += next(), ++count;
  double left = uniform * kept;
  for (size_t i = 0; i < count; ++i) {
    left -= weight[static_cast<size_t>(order[i])];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace moba
