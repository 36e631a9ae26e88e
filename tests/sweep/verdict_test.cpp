// Verdicts by fixed margins, on results made by hand.
#include "src/sweep/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "src/sweep/student.h"
#include "tests/interop/scratch_folder.h"

namespace moba::sweep {
namespace {

// One row per seed and arm.
std::vector<Result> results(const std::vector<std::pair<std::string, std::vector<double>>>& arms) {
  std::vector<Result> out;
  for (const auto& [arm, losses] : arms)
    for (size_t seed = 0; seed < losses.size(); ++seed) {
      Result r;
      r.arm = arm;
      r.run = fmt::format("{}-s{}", arm, seed);
      r.seed = seed;
      r.status = "finished";
      r.eval_loss = losses[seed];
      out.push_back(r);
    }
  return out;
}

Claim claim(ClaimKind kind, double margin) {
  Claim c;
  c.name = "c";
  c.kind = kind;
  c.arm = "a";
  c.reference = "b";
  c.margin = margin;
  return c;
}

Verdict verdict(const Claim& c, const std::vector<Result>& r) {
  Margins margins;
  margins.claims = {c};
  return judge(margins, r).at(0);
}

TEST(Student, QuantilesOfTheTables) {
  EXPECT_NEAR(student_quantile(0.95, 1), 6.314, 1e-3);
  EXPECT_NEAR(student_quantile(0.95, 2), 2.920, 1e-3);
  EXPECT_NEAR(student_quantile(0.975, 10), 2.228, 1e-3);
  EXPECT_NEAR(student_quantile(0.05, 10), -1.812, 1e-3);
  EXPECT_NEAR(student_cdf(1.0, 1), 0.75, 1e-9);
}

TEST(Verdict, EquivalenceNeedsBothBoundsInside) {
  // Differences 0.001, 0.002, 0.003: mean 0.002, bounds +-2.920 * 0.001 / sqrt(3) = +-0.00169.
  const auto r = results({{"a", {2.001, 2.102, 2.203}}, {"b", {2.0, 2.1, 2.2}}});
  const Verdict v = verdict(claim(ClaimKind::equivalent, 0.01), r);
  EXPECT_EQ(v.outcome, Outcome::holds) << v.text;
  EXPECT_NEAR(v.mean, 0.002, 1e-9);
  EXPECT_NEAR(v.high, 0.003686, 1e-6);
  EXPECT_NEAR(v.detectable, 0.001686 + 1.061 * 0.001 / std::sqrt(3.0), 1e-6);               // t of 80 % power on top
  EXPECT_EQ(verdict(claim(ClaimKind::equivalent, 0.003), r).outcome, Outcome::unresolved);  // the upper bound is 0.0037
  EXPECT_EQ(verdict(claim(ClaimKind::equivalent, 0.0003), r).outcome, Outcome::fails);      // the lower bound is 0.0003+
}

TEST(Verdict, DirectionNeedsMoreThanNoise) {
  const auto r = results({{"a", {2.02, 2.11, 2.22}}, {"b", {2.0, 2.1, 2.2}}});
  EXPECT_EQ(verdict(claim(ClaimKind::higher, 0), r).outcome, Outcome::holds);
  EXPECT_EQ(verdict(claim(ClaimKind::lower, 0), r).outcome, Outcome::fails);
  const auto noisy = results({{"a", {2.05, 2.08, 2.22}}, {"b", {2.0, 2.1, 2.2}}});
  const Verdict v = verdict(claim(ClaimKind::higher, 0), noisy);
  EXPECT_EQ(v.outcome, Outcome::unresolved);
  EXPECT_NE(v.text.find("detectable"), std::string::npos) << v.text;
}

TEST(Verdict, OneSeedOrAMissingRunSayNothing) {
  EXPECT_EQ(verdict(claim(ClaimKind::equivalent, 0.01), results({{"a", {2.0}}, {"b", {2.0}}})).outcome, Outcome::unresolved);
  auto r = results({{"a", {2.0, 2.0}}, {"b", {2.0, 2.0}}});
  r[3].status = "partial";
  const Verdict v = verdict(claim(ClaimKind::equivalent, 0.01), r);
  EXPECT_STREQ(outcome_text(v.outcome), "not finished");
  EXPECT_NE(v.text.find("b-s1"), std::string::npos) << v.text;
  r[3].status = "absent";
  EXPECT_STREQ(outcome_text(verdict(claim(ClaimKind::equivalent, 0.01), r).outcome), "not run");
  r[3].status = "failed", r[3].ended = "not finite at step 7";
  EXPECT_NE(verdict(claim(ClaimKind::equivalent, 0.01), r).text.find("failed: not finite at step 7"), std::string::npos);
}

// Claims a against b, and c against `reference`, by one spread.
std::vector<Verdict> pooled_verdicts(const std::vector<Result>& r, const std::string& reference) {
  Claim second = claim(ClaimKind::equivalent, 0.01);
  second.arm = "c";
  second.reference = reference;
  Margins margins;
  margins.pooled = true;
  margins.claims = {claim(ClaimKind::equivalent, 0.01), second};
  return judge(margins, r);
}

TEST(Verdict, PooledSpreadCountsPairsThatShareARunForLess) {
  // Variances 1e-6 and 4e-6, pooled 2.5e-6.
  const auto r = results({{"a", {2.001, 2.102, 2.203}}, {"c", {2.004, 2.102, 2.2}}, {"b", {2.0, 2.1, 2.2}}, {"d", {2.0, 2.1, 2.2}}});
  const auto half = [](const Verdict& v) { return v.high - v.mean; };
  const double error = std::sqrt(2.5e-6 / 3);
  // 4 degrees of freedom count as 4 / (1 + 1/4) where both pairs have b, and as 4 where they share nothing.
  EXPECT_NEAR(half(pooled_verdicts(r, "b").at(0)), student_quantile(0.95, 3.2) * error, 1e-9);
  EXPECT_NEAR(half(pooled_verdicts(r, "d").at(0)), student_quantile(0.95, 4) * error, 1e-9);
}

TEST(Verdict, NoisyPairIsJudgedByItsOwnSpread) {
  // c - b: 0.031, 0.034, 0.037; own variance 9e-6, pooled 5e-6 with more degrees of freedom.
  const auto r = results({{"a", {2.001, 2.102, 2.203}}, {"c", {2.031, 2.134, 2.237}}, {"b", {2.0, 2.1, 2.2}}});
  const Verdict noisy = pooled_verdicts(r, "b").at(1);
  EXPECT_NEAR(noisy.high - noisy.mean, student_quantile(0.95, 2) * std::sqrt(9e-6 / 3), 1e-9);
  EXPECT_NE(noisy.text.find("own spread"), std::string::npos) << noisy.text;
}

TEST(Verdict, SlopeOverTheArmsOrder) {
  Claim c = claim(ClaimKind::falls, 0);
  c.arms = {"a", "b", "c"};
  EXPECT_EQ(verdict(c, results({{"a", {2.0, 2.1}}, {"b", {1.99, 2.09}}, {"c", {1.98, 2.081}}})).outcome, Outcome::holds);
  EXPECT_EQ(verdict(c, results({{"a", {1.98, 2.081}}, {"b", {1.99, 2.09}}, {"c", {2.0, 2.1}}})).outcome, Outcome::fails);
}

TEST(Verdict, SpikeIsAJumpOfThreeDeviations) {
  std::vector<StepLoss> steps;
  for (int i = 0; i < 40; ++i) steps.push_back({2.0 + (i % 2 ? 0.01 : -0.01), i < 20 ? "moba" : "full"});
  EXPECT_NEAR(spike(steps, 10).value(), 0, 1e-6);
  for (int i = 20; i < 40; ++i) steps[static_cast<size_t>(i)].loss += 0.05;
  EXPECT_GT(spike(steps, 10).value(), 3);
  EXPECT_FALSE(spike(steps, 21).has_value());  // not enough steps on either side
}

TEST(Results, CsvKeepsEveryCell) {
  const test::ScratchFolder folder;
  auto rows = results({{"a", {2.5}}});
  rows[0].overrides = {{"data.train", "[{path: \"x,y.h5\", weight: 1}]"}};
  rows[0].position_loss = {3.0, 2.0};
  rows[0].weights_hash = "00ff";
  write_results(folder.path("r.csv"), rows);
  const CsvTable table = read_csv(folder.path("r.csv"));
  ASSERT_EQ(table.rows.size(), 1u);
  EXPECT_EQ(table.rows[0].at("data.train"), rows[0].overrides[0].second);
  EXPECT_EQ(table.rows[0].at("eval_loss"), "2.5");
  EXPECT_EQ(table.rows[0].at("trailing_loss"), "");
  EXPECT_EQ(table.rows[0].at("position_loss_01"), "2");
  EXPECT_EQ(table.rows[0].at("weights_hash"), "00ff");
}

}  // namespace
}  // namespace moba::sweep
