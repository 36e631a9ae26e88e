#include "src/sweep/fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "kernels/common/check.h"
#include "src/sweep/student.h"

namespace moba::sweep {
namespace {

// Fits work on x = log C - mean(log C): level and slope are then nearly independent, and far from C = 1 nothing is extrapolated.
struct Data {
  std::vector<double> x, y;  // centred log C, log L
  double centre = 0;
  size_t size() const { return x.size(); }
};

// log L = level + slope * x, or L = e + exp(level + slope * x)
struct Curve {
  double level = 0, slope = 0, e = 0;
  double log_loss(double x) const { return e > 0 ? std::log(e + std::exp(level + slope * x)) : level + slope * x; }
};

Data centred(const std::vector<ScalingPoint>& points) {
  Data out;
  for (const ScalingPoint& p : points) {
    out.x.push_back(std::log(p.compute));
    out.y.push_back(std::log(p.loss));
    out.centre += out.x.back() / static_cast<double>(points.size());
  }
  for (double& x : out.x) x -= out.centre;
  return out;
}

double huber(double residual) {
  const double r = std::abs(residual);
  return r <= kHuber ? 0.5 * r * r : kHuber * (r - 0.5 * kHuber);
}

double objective(const Data& d, const Curve& c) {
  double sum = 0;
  for (size_t i = 0; i < d.size(); ++i) sum += huber(d.y[i] - c.log_loss(d.x[i]));
  return sum;
}

// Weighted straight line through (x, z); false if the x do not differ.
bool line(const Data& d, const std::vector<double>& z, const std::vector<double>& weight, Curve& out) {
  double w = 0, wx = 0, wz = 0, wxx = 0, wxz = 0;
  for (size_t i = 0; i < d.size(); ++i) {
    w += weight[i];
    wx += weight[i] * d.x[i];
    wz += weight[i] * z[i];
    wxx += weight[i] * d.x[i] * d.x[i];
    wxz += weight[i] * d.x[i] * z[i];
  }
  const double determinant = w * wxx - wx * wx;
  if (!(determinant > 0)) return false;
  out.slope = (w * wxz - wx * wz) / determinant;
  out.level = (wz - out.slope * wx) / w;
  return true;
}

// Best level and slope for a given e, by iteratively reweighted least squares on the linearised curve (Gauss-Newton for e > 0).
Curve best_line(const Data& d, double e, const Curve* start = nullptr) {
  constexpr int kRounds = 20;
  constexpr double kEnough = 1e-7;
  Curve c;
  std::vector<double> z(d.size()), weight(d.size(), 1.0);
  if (start) {
    c = *start;
  } else {
    for (size_t i = 0; i < d.size(); ++i) z[i] = e > 0 ? std::log(std::exp(d.y[i]) - e) : d.y[i];
    line(d, z, weight, c);
  }
  c.e = e;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < d.size(); ++i) {
      const double straight = c.level + c.slope * d.x[i];
      const double residual = d.y[i] - c.log_loss(d.x[i]);
      // d log L / d level: 1 without e, the reducible share of L with it.
      const double share = e > 0 ? std::exp(straight) / (e + std::exp(straight)) : 1;
      z[i] = straight + residual / share;
      weight[i] = share * share * std::min(1.0, kHuber / std::max(std::abs(residual), 1e-15));
    }
    Curve next = c;
    if (!line(d, z, weight, next)) break;
    const double change = std::abs(next.level - c.level) + std::abs(next.slope - c.slope);
    c = next;
    if (change < kEnough) break;
  }
  return c;
}

// Golden-section search over e, after a scan that brackets the best. Each line starts from the one before it.
Curve best_curve(const Data& d) {
  constexpr int kScan = 16, kRefine = 26;
  constexpr double kLargest = 0.999, kGolden = 0.6180339887498949;
  const double smallest = std::exp(*std::min_element(d.y.begin(), d.y.end()));
  Curve best = best_line(d, 0);
  double least = objective(d, best);
  int place = 0;
  for (int i = 1; i <= kScan; ++i) {
    const Curve c = best_line(d, kLargest * i / kScan * smallest);
    const double value = objective(d, c);
    if (value < least) least = value, place = i, best = c;
  }
  const Curve start = best;
  const auto at = [&](double u) {
    const Curve c = best_line(d, u * smallest, place > 0 ? &start : nullptr);
    const double value = objective(d, c);
    if (value < least) least = value, best = c;
    return value;
  };
  double low = kLargest * std::max(0, place - 1) / kScan, high = kLargest * std::min(kScan, place + 1) / kScan;
  double inner = high - kGolden * (high - low), outer = low + kGolden * (high - low);
  double at_inner = at(inner), at_outer = at(outer);
  for (int i = 0; i < kRefine; ++i) {
    if (at_inner < at_outer) {
      high = outer, outer = inner, at_outer = at_inner;
      inner = high - kGolden * (high - low), at_inner = at(inner);
    } else {
      low = inner, inner = outer, at_inner = at_outer;
      outer = low + kGolden * (high - low), at_outer = at(outer);
    }
  }
  return best;
}

Curve fit_curve(const Data& d, bool irreducible) { return irreducible ? best_curve(d) : best_line(d, 0); }

double log_a(const Curve& c, const Data& d) { return c.level - c.slope * d.centre; }

Law as_law(const Curve& c, double centre) { return {std::exp(c.level - c.slope * centre), c.slope, c.e}; }

double square(double v) { return v * v; }

// Residuals of the spread that the errors have: divided by sqrt(1 - leverage), centred.
std::vector<double> residuals(const Data& d, const Curve& c, double parameters) {
  const auto n = static_cast<double>(d.size());
  double squares = 0, sum = 0;
  for (double x : d.x) squares += x * x;
  std::vector<double> out;
  for (size_t i = 0; i < d.size(); ++i) {
    // The third parameter has a leverage of its own, spread evenly.
    const double leverage = std::min(0.9, 1 / n + square(d.x[i]) / squares + (parameters - 2) / n);
    out.push_back((d.y[i] - c.log_loss(d.x[i])) / std::sqrt(1 - leverage));
    sum += out.back();
  }
  for (double& r : out) r -= sum / n;
  return out;
}

// Standard errors by the usual formula: residual variance times the inverse of J^T J, J the derivatives of log L.
struct Errors {
  double log_a = 0, slope = 0, e = 0;
};
Errors standard_errors(const Data& d, const Curve& c, bool irreducible) {
  const size_t parameters = irreducible ? 3 : 2;
  std::array<std::array<double, 3>, 3> m{};
  double sum = 0;
  for (size_t i = 0; i < d.size(); ++i) {
    const double loss = std::exp(c.log_loss(d.x[i])), share = 1 - c.e / loss;
    const std::array<double, 3> j = {share, share * d.x[i], 1 / loss};  // by level, slope, e
    for (size_t p = 0; p < 3; ++p)
      for (size_t q = 0; q < 3; ++q) m[p][q] += j[p] * j[q];
    sum += square(d.y[i] - c.log_loss(d.x[i]));
  }
  if (!irreducible) m[2] = {0, 0, 1}, m[0][2] = m[1][2] = 0;
  // Inverse of the symmetric 3 x 3 matrix by cofactors.
  const auto cofactor = [&](size_t p, size_t q) {
    const size_t p1 = (p + 1) % 3, p2 = (p + 2) % 3, q1 = (q + 1) % 3, q2 = (q + 2) % 3;
    return m[p1][q1] * m[p2][q2] - m[p1][q2] * m[p2][q1];
  };
  const double determinant = m[0][0] * cofactor(0, 0) + m[0][1] * cofactor(0, 1) + m[0][2] * cofactor(0, 2);
  const double variance =
      std::max(sum / static_cast<double>(std::max<size_t>(1, d.size() - parameters)), 1e-30) / std::max(determinant, 1e-300);
  const double log_a = cofactor(0, 0) - 2 * d.centre * cofactor(0, 1) + square(d.centre) * cofactor(1, 1);
  return {std::sqrt(variance * log_a), std::sqrt(variance * cofactor(1, 1)), std::sqrt(variance * cofactor(2, 2))};
}

double quantile(std::vector<double>& sorted, double p) {
  const double at = std::clamp(p, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// One point for each size: the mean over its seeds of the residuals from the curve, on the curve.
Data by_size(const Data& d, const Curve& c) {
  std::map<double, std::pair<double, int>> sums;
  for (size_t i = 0; i < d.size(); ++i) {
    auto& [sum, count] = sums[d.x[i]];
    sum += d.y[i] - c.log_loss(d.x[i]);
    count += 1;
  }
  Data out;
  out.centre = d.centre;
  for (const auto& [x, s] : sums) {
    out.x.push_back(x);
    out.y.push_back(c.log_loss(x) + s.first / s.second);
  }
  return out;
}

// A parameter's value and standard error, and (value' - value) / error' of every bootstrap sample.
struct Estimate {
  double value = 0, error = 0;
  std::vector<double> t;
  void sample(double again, double own_error) { t.push_back((again - value) / own_error); }
};

// Hull of value - t_high * error .. value - t_low * error by the bootstrap's t and by Student's.
Interval hull(Estimate e, double level, double degrees) {
  std::sort(e.t.begin(), e.t.end());
  const double student = student_quantile(0.5 + level / 2, degrees);
  return {e.value - std::max(student, quantile(e.t, 0.5 + level / 2)) * e.error,
          e.value - std::min(-student, quantile(e.t, 0.5 - level / 2)) * e.error};
}

void check_points(const std::vector<ScalingPoint>& points, bool irreducible) {
  std::set<double> distinct;
  for (const ScalingPoint& p : points) {
    MOBA_CHECK(p.compute > 0 && p.loss > 0 && std::isfinite(p.compute) && std::isfinite(p.loss),
               "a scaling law needs FLOPs and losses above 0, got C = {} and L = {}", p.compute, p.loss);
    distinct.insert(p.compute);
  }
  const size_t least = irreducible ? 4 : 3;
  MOBA_CHECK(distinct.size() >= least, "a scaling law {}needs at least {} different FLOPs, got {}; run more sizes",
             irreducible ? "with an irreducible term " : "", least, distinct.size());
}

}  // namespace

double Law::at(double compute) const { return irreducible + a * std::pow(compute, b); }

Law fit_law(const std::vector<ScalingPoint>& points, bool irreducible) {
  check_points(points, irreducible);
  const Data d = centred(points);
  return as_law(fit_curve(d, irreducible), d.centre);
}

Fit fit_with_intervals(const std::vector<ScalingPoint>& points, const FitOptions& options) {
  constexpr Interval kNone = {-INFINITY, INFINITY};
  check_points(points, options.irreducible);
  const Data d = centred(points);
  const Curve c = fit_curve(d, options.irreducible);
  const Data sizes = by_size(d, c);
  const int parameters = options.irreducible ? 3 : 2;
  Fit out;
  out.law = as_law(c, d.centre);
  out.a = out.b = out.irreducible = kNone;
  out.points = static_cast<int64_t>(points.size());
  out.sizes = static_cast<int64_t>(sizes.size());
  out.has_intervals = out.sizes >= parameters + 2;
  for (size_t i = 0; i < d.size(); ++i) out.residual += square(d.y[i] - c.log_loss(d.x[i])) / static_cast<double>(d.size());
  out.residual = std::sqrt(out.residual);
  if (!out.has_intervals) return out;

  const Errors errors = standard_errors(sizes, c, options.irreducible);
  Estimate a{log_a(c, d), errors.log_a, {}}, b{c.slope, errors.slope, {}}, e{c.e, errors.e, {}};
  std::vector<double> terms;
  const std::vector<double> errors_to_draw = residuals(sizes, c, parameters);
  std::mt19937_64 random(options.seed);
  for (int s = 0; s < options.samples; ++s) {
    Data drawn = sizes;
    // Modulo, not a library's distribution: the same numbers everywhere.
    for (size_t i = 0; i < drawn.size(); ++i) drawn.y[i] = c.log_loss(drawn.x[i]) + errors_to_draw[random() % drawn.size()];
    const Curve again = fit_curve(drawn, options.irreducible);
    const Errors own = standard_errors(drawn, again, options.irreducible);
    a.sample(log_a(again, d), own.log_a);
    b.sample(again.slope, own.slope);
    e.sample(again.e, own.e);
    terms.push_back(again.e);
  }
  const auto degrees = static_cast<double>(out.sizes - parameters);
  const Interval in_logs = hull(std::move(a), options.level, degrees);
  out.a = {std::exp(in_logs.low), std::exp(in_logs.high)};
  out.b = hull(std::move(b), options.level, degrees);
  if (!options.irreducible) return out;
  out.irreducible = hull(std::move(e), options.level, degrees);
  out.irreducible.low = std::max(0.0, out.irreducible.low);
  // At the boundary e = 0 the studentised interval shrinks to nothing; what the samples found still bounds it.
  std::sort(terms.begin(), terms.end());
  out.irreducible.high = std::max(out.irreducible.high, quantile(terms, 0.5 + options.level / 2));
  // What no model can do better than lies below what the models do.
  const auto less = [](const ScalingPoint& p, const ScalingPoint& q) { return p.loss < q.loss; };
  out.irreducible.high = std::min(out.irreducible.high, std::min_element(points.begin(), points.end(), less)->loss);
  return out;
}

}  // namespace moba::sweep
