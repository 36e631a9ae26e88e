// Scaling laws: L(C) = a * C^b, and with an irreducible term L(C) = e + a * C^b. C in PFLOP/s-days (8.64e19 FLOPs), L in nats.
//
// Fit: the Huber loss of log L is least (delta kHuber, as in arXiv 2203.15556), so that one diverged run does not bend the curve.
// Intervals: bootstrap of residuals. The points' C are kept, as they were chosen and not drawn; residuals are divided by
// sqrt(1 - leverage) and centred, and the law is fitted again `samples` times. Intervals are studentised (bootstrap-t): plain
// percentiles are too narrow at the handful of sizes that a scaling run has.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moba::sweep {

inline constexpr double kFlopsPerPetaflopDay = 8.64e19;
inline constexpr double kHuber = 1e-3;

struct ScalingPoint {
  double compute = 0;  // PFLOP/s-days
  double loss = 0;
};

struct Law {
  double a = 0, b = 0, irreducible = 0;
  double at(double compute) const;
};

struct Interval {
  double low = 0, high = 0;
};

struct FitOptions {
  bool irreducible = false;
  double level = 0.95;  // of the intervals, two-sided
  int samples = 1000;
  uint64_t seed = 1;
};

struct Fit {
  Law law;
  Interval a, b, irreducible;
  double residual = 0;  // root mean square of log residuals
  int64_t points = 0;
};

Law fit_law(const std::vector<ScalingPoint>& points, bool irreducible);
// Error(usage) if there are fewer than three distinct C (four with the irreducible term), or values that are not above 0.
Fit fit_with_intervals(const std::vector<ScalingPoint>& points, const FitOptions& options);

}  // namespace moba::sweep
