// Scaling laws: L(C) = a * C^b, and with an irreducible term L(C) = e + a * C^b. C in PFLOP/s-days (8.64e19 FLOPs), L in nats.
//
// Fit: the Huber loss of log L is least (delta kHuber, as in arXiv 2203.15556), so that one diverged run does not bend the curve.
// Intervals: the seeds of one size are one observation, since what a size deviates by is common to them and no seed tells it. Of the sizes'
// mean residuals come two intervals, and their hull is given:
// - bootstrap of residuals: the sizes' C are kept, as they were chosen and not drawn; residuals are divided by sqrt(1 - leverage) and
//   centred, the law is fitted again `samples` times, and the interval is studentised (bootstrap-t);
// - Student's t with (sizes - parameters) degrees of freedom: at a handful of sizes the bootstrap draws from too few residuals.
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
  double low = 0, high = 0;  // not finite: too few sizes
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
  int64_t points = 0, sizes = 0;
  bool has_intervals = false;  // there are enough sizes for them: two more than parameters
};

Law fit_law(const std::vector<ScalingPoint>& points, bool irreducible);
// Error(usage) if there are fewer than three distinct C (four with the irreducible term), or values that are not above 0.
Fit fit_with_intervals(const std::vector<ScalingPoint>& points, const FitOptions& options);

}  // namespace moba::sweep
