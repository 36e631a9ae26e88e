// Scaling laws: exact points give the law back, one bad point does not bend it, and intervals hold what they promise.
#include "src/sweep/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/common/check.h"

namespace moba::sweep {
namespace {

constexpr int kSizes = 5;  // as in the paper

std::vector<double> computes() {
  std::vector<double> out;
  for (int i = 0; i < kSizes; ++i) out.push_back(5e-8 * std::pow(400.0, i / (kSizes - 1.0)));
  return out;
}

struct Noise {
  double seed = 0;  // sd in log L of single runs
  double size = 0;  // sd of what all seeds of a size have in common: a size that its recipe does not suit
};

// `seeds` noisy losses at every size; the noise is normal in log L.
std::vector<ScalingPoint> planted(const Law& law, int seeds, const Noise& noise, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, 1);
  std::vector<ScalingPoint> out;
  for (double c : computes()) {
    const double common = noise.size * normal(random);
    for (int s = 0; s < seeds; ++s) out.push_back({c, law.at(c) * std::exp(common + noise.seed * normal(random))});
  }
  return out;
}

const Law kPower{2.625, -0.063, 0};
const Law kIrreducible{0.5, -0.12, 1.6};

TEST(Fit, ExactPointsGiveTheLawBack) {
  const Law power = fit_law(planted(kPower, 1, {}, 1), false);
  EXPECT_NEAR(power.a, kPower.a, 1e-6);
  EXPECT_NEAR(power.b, kPower.b, 1e-8);
  const Law law = fit_law(planted(kIrreducible, 1, {}, 1), true);
  EXPECT_NEAR(law.irreducible, kIrreducible.irreducible, 1e-3);
  EXPECT_NEAR(law.b, kIrreducible.b, 1e-4);
  EXPECT_NEAR(law.a, kIrreducible.a, 1e-3);
}

TEST(Fit, OneDivergedRunDoesNotBendTheLaw) {
  auto points = planted(kPower, 3, {0.001}, 2);
  points.back().loss *= 1.3;
  const Law law = fit_law(points, false);
  EXPECT_NEAR(law.b, kPower.b, 0.001);
}

TEST(Fit, TooFewSizesAreRefused) {
  const std::vector<ScalingPoint> two = {{1, 2}, {2, 1.9}, {2, 1.91}};
  EXPECT_THROW(fit_law(two, false), Error);
  EXPECT_THROW(fit_law({{1, 2}, {2, 1.9}, {3, 1.8}}, true), Error);
  EXPECT_THROW(fit_law({{1, 2}, {2, 1.9}, {3, -1.8}}, false), Error);
}

struct Coverage {
  int a = 0, b = 0, irreducible = 0;
};

// How many of 100 simulations have the planted value inside the interval.
Coverage coverage(const Law& law, int seeds, const Noise& noise, double level, int samples) {
  Coverage out;
  for (uint64_t s = 0; s < 100; ++s) {
    const Fit fit = fit_with_intervals(planted(law, seeds, noise, 1000 + s), {law.irreducible > 0, level, samples, s});
    const auto inside = [](const Interval& i, double v) { return i.low <= v && v <= i.high; };
    out.a += inside(fit.a, law.a);
    out.b += inside(fit.b, law.b);
    out.irreducible += inside(fit.irreducible, law.irreducible);
  }
  std::printf("%d seeds, noise %g by run and %g by size, level %g: a in %d, b in %d, e in %d of 100\n", seeds, noise.seed, noise.size,
              level, out.a, out.b, out.irreducible);
  return out;
}

// An exact 95 % interval has fewer than 90 of 100 inside in one series of 35, an exact 99 % one fewer than 95 in one of 290.
struct Level {
  double level;
  int least;
};
constexpr Level kLevels[] = {{0.95, 90}, {0.99, 95}};

TEST(Fit, PlantedPowerLawIsInsideItsInterval) {
  const std::pair<int, Noise> cases[] = {{1, {0.003}}, {3, {0.003}}, {3, {0.002, 0.005}}};
  for (const auto& [seeds, noise] : cases)
    for (const Level& l : kLevels) {
      const Coverage c = coverage(kPower, seeds, noise, l.level, 400);
      EXPECT_GE(c.a, l.least);
      EXPECT_GE(c.b, l.least);
    }
}

TEST(Fit, PlantedIrreducibleLawIsInsideItsInterval) {
  const std::pair<int, Noise> cases[] = {{1, {0.002}}, {3, {0.002}}, {3, {0.002, 0.005}}};
  for (const auto& [seeds, noise] : cases)
    for (const Level& l : kLevels) {
      const Coverage c = coverage(kIrreducible, seeds, noise, l.level, 200);
      EXPECT_GE(c.a, l.least);
      EXPECT_GE(c.b, l.least);
      EXPECT_GE(c.irreducible, l.least);
    }
}

TEST(Fit, IntervalsAreNotWideForTheirOwnSake) {
  const Fit fit = fit_with_intervals(planted(kPower, 3, {0.003}, 5), {});
  EXPECT_LT(fit.b.high - fit.b.low, 0.004);  // the standard error of b is about 4e-4
}

}  // namespace
}  // namespace moba::sweep
