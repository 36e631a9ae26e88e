#include "src/data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr int64_t kLargestPeriod = 65536;

// Smallest period in which every weight is a whole number of samples; empty when there is none up to the largest.
std::vector<int64_t> exact_weights(const std::vector<double>& weights, double sum) {
  for (int64_t period = 1; period <= kLargestPeriod; ++period) {
    std::vector<int64_t> whole;
    for (const double w : weights) {
      const double samples = w / sum * static_cast<double>(period);
      if (std::round(samples) < 1 || std::abs(samples - std::round(samples)) > 1e-9 * samples) break;
      whole.push_back(static_cast<int64_t>(std::round(samples)));
    }
    if (whole.size() == weights.size()) return whole;
  }
  return {};
}

// Largest remainders: the sum is kLargestPeriod, no source gets nothing.
std::vector<int64_t> rounded_weights(const std::vector<double>& weights, double sum) {
  const size_t n = weights.size();
  std::vector<int64_t> whole(n);
  std::vector<double> rest(n);
  for (size_t i = 0; i < n; ++i) {
    const double samples = weights[i] / sum * static_cast<double>(kLargestPeriod);
    MOBA_CHECK(samples >= 0.5, "data weight {} is less than 1/131072 of the sum {}: leave that file out", weights[i], sum);
    whole[i] = std::max<int64_t>(1, static_cast<int64_t>(samples));
    rest[i] = samples - static_cast<double>(whole[i]);
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](size_t i) { return rest[i]; });
  int64_t missing = kLargestPeriod - std::accumulate(whole.begin(), whole.end(), int64_t{0});
  for (size_t i = 0; missing > 0; i = (i + 1) % n, --missing) ++whole[order[i]];
  while (missing < 0) {
    --*std::ranges::max_element(whole);
    ++missing;
  }
  return whole;
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  MOBA_CHECK(!weights.empty(), "no data files given");
  for (const double w : weights) MOBA_CHECK(std::isfinite(w) && w > 0, "data weights must be positive, got {}", w);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  weights_ = exact_weights(weights, sum);
  if (weights_.empty()) weights_ = rounded_weights(weights, sum);

  const int64_t period = std::accumulate(weights_.begin(), weights_.end(), int64_t{0});
  std::vector<int64_t> behind(weights_.size(), 0);  // times the period: weight * samples so far - period * samples of the source
  std::vector<uint32_t> before(weights_.size(), 0);
  period_.reserve(static_cast<size_t>(period));
  for (int64_t n = 0; n < period; ++n) {
    for (size_t i = 0; i < weights_.size(); ++i) behind[i] += weights_[i];
    const auto most = static_cast<size_t>(std::ranges::max_element(behind) - behind.begin());
    period_.push_back({static_cast<uint32_t>(most), before[most]++});
    behind[most] -= period;
  }
}

Mixture::Pick Mixture::operator()(int64_t n) const {
  const auto period = static_cast<int64_t>(period_.size());
  const Slot slot = period_[static_cast<size_t>(n % period)];
  return {static_cast<int>(slot.source), n / period * weights_[slot.source] + slot.before};
}

}  // namespace moba
