#include "src/sweep/verdict.h"

#include <algorithm>
#include <cmath>

#include "src/sweep/spread.h"
#include "src/sweep/student.h"

namespace moba::sweep {
namespace {

using nlohmann::json;

const Result* find(const std::vector<Result>& results, const std::string& arm, uint64_t seed) {
  for (const Result& r : results)
    if (r.arm == arm && r.seed == seed) return &r;
  return nullptr;
}

std::string state_text(const Result& r) { return r.ended.empty() ? r.status : r.status + ": " + r.ended; }

std::vector<uint64_t> seeds_of(const std::vector<Result>& results, const std::string& arm) {
  std::vector<uint64_t> out;
  for (const Result& r : results)
    if (r.arm == arm) out.push_back(r.seed);
  return out;
}

// The metric of one run, or none, with the reason and what that makes of the claim.
std::optional<double> metric_of(const std::vector<Result>& results, const std::string& arm, uint64_t seed, Verdict& v) {
  const Result* r = find(results, arm, seed);
  const auto metric = r ? r->metric(v.claim.metric) : std::nullopt;
  if (metric) return metric;
  v.text = fmt::format("{} of {}-s{} is not there (its run is {})", v.claim.metric, arm, seed, r ? state_text(*r) : "absent");
  v.outcome = !r || r->status == "absent" ? Outcome::not_run : Outcome::not_finished;
  return {};
}

// Arm - reference for every seed; empty as soon as one is missing.
std::vector<double> paired_differences(const std::vector<Result>& results, Verdict& v) {
  std::vector<double> out;
  for (const uint64_t seed : seeds_of(results, v.claim.arm)) {
    const auto arm = metric_of(results, v.claim.arm, seed, v), reference = metric_of(results, v.claim.reference, seed, v);
    if (!arm || !reference) return {};
    out.push_back(*arm - *reference);
  }
  return out;
}

// Least-squares slope of the metric over the arms' order, per seed.
std::vector<double> slopes(const std::vector<Result>& results, Verdict& v) {
  std::vector<double> out;
  const auto n = static_cast<double>(v.claim.arms.size());
  for (const uint64_t seed : seeds_of(results, v.claim.arms.front())) {
    double numerator = 0, denominator = 0;
    for (size_t i = 0; i < v.claim.arms.size(); ++i) {
      const auto metric = metric_of(results, v.claim.arms[i], seed, v);
      if (!metric) return {};
      const double x = static_cast<double>(i) - (n - 1) / 2;
      numerator += x * *metric;
      denominator += x * x;
    }
    out.push_back(numerator / denominator);
  }
  return out;
}

std::vector<StepLoss> step_losses(const std::string& folder) {
  std::vector<StepLoss> out;
  for (const json& line : read_metrics(folder))
    if (line.contains("train/loss") && line["train/loss"].is_number())
      out.push_back({line["train/loss"], line.value("attention/type", "")});
  return out;
}

std::string verdict_sentence(const Verdict& v, double confidence) {
  const std::string unit = v.claim.kind == ClaimKind::falls ? "nats per arm" : "nats";
  const std::string interval = fmt::format("{:+.4f} {} [{:+.4f}, {:+.4f}] ({:.0f} % one-sided bounds, {} seeds, {} spread)", v.mean, unit,
                                           v.low, v.high, 100 * confidence, v.differences.size(), v.spread);
  const std::string against = v.claim.kind == ClaimKind::equivalent ? fmt::format("margin {:g}", v.claim.margin)
                              : v.claim.margin > 0                  ? fmt::format("margin {:g}", v.claim.margin)
                                                                    : std::string("against zero");
  std::string out = fmt::format("{}; {}", interval, against);
  if (v.outcome == Outcome::unresolved)
    out += fmt::format("; detectable with these seeds, with {:.0f} % power: {:.4f}", 100 * kPower, v.detectable);
  return out;
}

// The claim's region of true effects: [low, high]. It holds if both one-sided bounds lie inside, fails if both lie outside on one side.
Outcome place(double low_bound, double high_bound, double low, double high) {
  if (low_bound > low && high_bound < high) return Outcome::holds;
  if (high_bound <= low || low_bound >= high) return Outcome::fails;
  return Outcome::unresolved;
}

Outcome decide(const Verdict& v) {
  constexpr double kInfinity = INFINITY;
  switch (v.claim.kind) {
    case ClaimKind::equivalent: return place(v.low, v.high, -v.claim.margin, v.claim.margin);
    case ClaimKind::higher: return place(v.low, v.high, v.claim.margin, kInfinity);
    default: return place(v.low, v.high, -kInfinity, -v.claim.margin);
  }
}

void judge_differences(Verdict& v, const Margins& margins, const Spread& spread) {
  v.mean = mean(v.differences);
  if (spread.degrees <= 0) {
    v.low = v.high = v.mean;
    v.detectable = INFINITY;
    v.text = fmt::format("{:+.4f} nats with one seed: without spread nothing can be said; run at least two seeds", v.mean);
    return;
  }
  const double error = std::sqrt(spread.variance / static_cast<double>(v.differences.size()));
  const double degrees = std::max(1.0, spread.degrees), half = student_quantile(margins.confidence, degrees) * error;
  v.spread = spread.name;
  v.low = v.mean - half;
  v.high = v.mean + half;
  v.detectable = half + student_quantile(kPower, degrees) * error;
  v.outcome = decide(v);
  v.text = verdict_sentence(v, margins.confidence);
}

void judge_spike(Verdict& v, const Margins& margins, const std::vector<Result>& results) {
  for (const Result& r : results) {
    if (r.arm != v.claim.arm) continue;
    const auto jump = r.status == "finished" ? spike(step_losses(r.folder), margins.spike_steps) : std::nullopt;
    if (!jump) {
      v.text = r.status == "finished" ? fmt::format("{}: no change of attention with {} steps on both sides", r.run, margins.spike_steps)
                                      : fmt::format("{} is {}", r.run, state_text(r));
      if (r.status != "finished") v.outcome = r.status == "absent" ? Outcome::not_run : Outcome::not_finished;
      v.differences.clear();
      return;
    }
    v.differences.push_back(*jump);
  }
  v.mean = mean(v.differences);
  v.low = *std::min_element(v.differences.begin(), v.differences.end());
  v.high = *std::max_element(v.differences.begin(), v.differences.end());
  v.detectable = margins.spike_sigmas;
  v.outcome = v.high > margins.spike_sigmas ? Outcome::fails : Outcome::holds;
  v.text = fmt::format(
      "mean loss of the {} steps after the switch minus that of the {} before: {:+.2f} to {:+.2f} standard deviations of the step "
      "loss ({} seeds); a spike is above {:g}",
      margins.spike_steps, margins.spike_steps, v.low, v.high, v.differences.size(), margins.spike_sigmas);
}

// The pairs that the claims of a metric compare, each once.
std::vector<Pair> pairs_of(const std::vector<Verdict>& verdicts, const std::string& metric) {
  std::vector<Pair> out;
  for (const Verdict& v : verdicts) {
    if (v.claim.metric != metric || v.claim.reference.empty() || v.differences.empty()) continue;
    const auto same = [&](const Pair& p) {
      return (p.arm == v.claim.arm && p.reference == v.claim.reference) || (p.arm == v.claim.reference && p.reference == v.claim.arm);
    };
    if (std::none_of(out.begin(), out.end(), same)) out.push_back({v.claim.arm, v.claim.reference, v.differences});
  }
  return out;
}

}  // namespace

const char* outcome_text(Outcome outcome) {
  switch (outcome) {
    case Outcome::holds: return "holds";
    case Outcome::fails: return "does not hold";
    case Outcome::not_run: return "not run";
    case Outcome::not_finished: return "not finished";
    case Outcome::unresolved: break;
  }
  return "not resolvable at this scale";
}

std::optional<double> spike(const std::vector<StepLoss>& steps, int64_t window) {
  std::optional<double> largest;
  const auto count = static_cast<int64_t>(steps.size());
  for (int64_t at = window; at + window <= count; ++at) {
    if (steps[static_cast<size_t>(at)].attention == steps[static_cast<size_t>(at - 1)].attention) continue;
    std::vector<double> before, after;
    for (int64_t i = 0; i < window; ++i) {
      before.push_back(steps[static_cast<size_t>(at - window + i)].loss);
      after.push_back(steps[static_cast<size_t>(at + i)].loss);
    }
    const double deviation = std::sqrt(sum_of_squares(before) / static_cast<double>(window - 1));
    const double jump = (mean(after) - mean(before)) / std::max(deviation, 1e-12);
    largest = std::max(largest.value_or(jump), jump);
  }
  return largest;
}

std::vector<Verdict> judge(const Margins& margins, const std::vector<Result>& results) {
  std::vector<Verdict> out;
  for (const Claim& claim : margins.claims) {
    Verdict& v = out.emplace_back();
    v.claim = claim;
    if (claim.kind == ClaimKind::no_spike)
      judge_spike(v, margins, results);
    else
      v.differences = claim.kind == ClaimKind::falls ? slopes(results, v) : paired_differences(results, v);
  }
  for (Verdict& v : out) {
    if (v.claim.kind == ClaimKind::no_spike || v.differences.empty()) continue;  // its text says what is missing
    Spread spread = own_spread(v.differences);
    // A pair noisier than the others is judged by its own spread. Slopes are no pairs.
    if (margins.pooled && v.claim.kind != ClaimKind::falls)
      if (const Spread pooled = pooled_spread(pairs_of(out, v.claim.metric)); pooled.variance >= spread.variance) spread = pooled;
    judge_differences(v, margins, spread);
  }
  return out;
}

nlohmann::ordered_json to_json(const Verdict& v) {
  nlohmann::ordered_json out = {{"claim", v.claim.name},    {"kind", claim_kind_name(v.claim.kind)},
                                {"metric", v.claim.metric}, {"outcome", outcome_text(v.outcome)},
                                {"text", v.text},           {"differences", v.differences}};
  if (v.claim.kind == ClaimKind::falls)
    out["arms"] = v.claim.arms;
  else
    out["arm"] = v.claim.arm, out["reference"] = v.claim.reference;
  out["margin"] = v.claim.margin;
  out["mean"] = v.mean;
  out["low"] = v.low;
  out["high"] = v.high;
  if (!v.spread.empty()) out["spread"] = v.spread;
  if (std::isfinite(v.detectable)) out["detectable"] = v.detectable;
  return out;
}

}  // namespace moba::sweep
