#include "src/sweep/verdict.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "src/sweep/student.h"

namespace moba::sweep {
namespace {

using nlohmann::json;

const Result* find(const std::vector<Result>& results, const std::string& arm, uint64_t seed) {
  for (const Result& r : results)
    if (r.arm == arm && r.seed == seed) return &r;
  return nullptr;
}

std::vector<uint64_t> seeds_of(const std::vector<Result>& results, const std::string& arm) {
  std::vector<uint64_t> out;
  for (const Result& r : results)
    if (r.arm == arm) out.push_back(r.seed);
  return out;
}

// Arm - reference for every seed; empty, with the reason, as soon as one is missing.
std::vector<double> paired_differences(const Claim& claim, const std::vector<Result>& results, std::string& why) {
  std::vector<double> out;
  for (const uint64_t seed : seeds_of(results, claim.arm)) {
    double value[2];
    int n = 0;
    for (const std::string& arm : {claim.arm, claim.reference}) {
      const Result* r = find(results, arm, seed);
      const auto metric = r ? r->metric(claim.metric) : std::nullopt;
      if (!metric) {
        why = fmt::format("{} of {}-s{} is not there (its run is {})", claim.metric, arm, seed, r ? r->status : "absent");
        return {};
      }
      value[n++] = *metric;
    }
    out.push_back(value[0] - value[1]);
  }
  return out;
}

// Least-squares slope of the metric over the arms' order, per seed.
std::vector<double> slopes(const Claim& claim, const std::vector<Result>& results, std::string& why) {
  std::vector<double> out;
  const auto n = static_cast<double>(claim.arms.size());
  for (const uint64_t seed : seeds_of(results, claim.arms.front())) {
    double numerator = 0, denominator = 0;
    for (size_t i = 0; i < claim.arms.size(); ++i) {
      const Result* r = find(results, claim.arms[i], seed);
      const auto metric = r ? r->metric(claim.metric) : std::nullopt;
      if (!metric) {
        why = fmt::format("{} of {}-s{} is not there (its run is {})", claim.metric, claim.arms[i], seed, r ? r->status : "absent");
        return {};
      }
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
  const std::string interval = fmt::format("{:+.4f} {} [{:+.4f}, {:+.4f}] ({:.0f} % one-sided bounds, {} seeds)", v.mean, unit, v.low,
                                           v.high, 100 * confidence, v.differences.size());
  const std::string against = v.claim.kind == ClaimKind::equivalent ? fmt::format("margin {:g}", v.claim.margin)
                              : v.claim.margin > 0                  ? fmt::format("margin {:g}", v.claim.margin)
                                                                    : std::string("against zero");
  std::string out = fmt::format("{}; {}", interval, against);
  if (v.outcome == Outcome::unresolved) out += fmt::format("; detectable with these seeds: {:.4f}", v.detectable);
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

struct Spread {
  double squares = 0;
  double count = 0;  // degrees of freedom of the sum
  double pairs = 1;

  // Pairs that share a run (the reference) vary together: correlation 1/2 of their deviations, 1/4 of their squares. All are taken to.
  double degrees() const { return count / (1 + (pairs - 1) / 4); }
  double variance() const { return squares / count; }
};

void judge_differences(Verdict& v, const Margins& margins, const Spread& spread) {
  const auto n = static_cast<double>(v.differences.size());
  v.mean = mean(v.differences);
  if (spread.count < 1) {
    v.low = v.high = v.mean;
    v.detectable = INFINITY;
    v.text = fmt::format("{:+.4f} nats with one seed: without spread nothing can be said; run at least two seeds", v.mean);
    return;
  }
  const double error = std::sqrt(spread.variance() / n);
  v.detectable = student_quantile(margins.confidence, std::max(1.0, spread.degrees())) * error;
  v.low = v.mean - v.detectable;
  v.high = v.mean + v.detectable;
  v.outcome = decide(v);
  v.text = verdict_sentence(v, margins.confidence);
}

void judge_spike(Verdict& v, const Margins& margins, const std::vector<Result>& results) {
  for (const Result& r : results) {
    if (r.arm != v.claim.arm) continue;
    const auto jump = r.status == "finished" ? spike(step_losses(r.folder), margins.spike_steps) : std::nullopt;
    if (!jump) {
      v.text = r.status == "finished" ? fmt::format("{}: no change of attention with {} steps on both sides", r.run, margins.spike_steps)
                                      : fmt::format("{} is {}", r.run, r.status);
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

// Differences with a spread: all kinds but no_spike.
bool by_differences(const Claim& claim) { return claim.kind != ClaimKind::no_spike; }

}  // namespace

const char* outcome_text(Outcome outcome) {
  switch (outcome) {
    case Outcome::holds: return "holds";
    case Outcome::fails: return "does not hold";
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
  std::map<std::string, Spread> pooled;  // by metric; slopes have a spread of their own
  for (const Claim& claim : margins.claims) {
    Verdict v;
    v.claim = claim;
    if (by_differences(claim)) {
      v.differences = claim.kind == ClaimKind::falls ? slopes(claim, results, v.text) : paired_differences(claim, results, v.text);
      if (claim.kind != ClaimKind::falls && !v.differences.empty()) {
        // A pair that several claims share counts once.
        const bool seen = std::any_of(out.begin(), out.end(), [&](const Verdict& o) {
          return o.claim.metric == claim.metric && o.claim.kind != ClaimKind::falls &&
                 ((o.claim.arm == claim.arm && o.claim.reference == claim.reference) ||
                  (o.claim.arm == claim.reference && o.claim.reference == claim.arm));
        });
        Spread& s = pooled[claim.metric];
        if (!seen) {
          s.squares += sum_of_squares(v.differences);
          s.pairs = s.count > 0 ? s.pairs + 1 : 1;
          s.count += static_cast<double>(v.differences.size()) - 1;
        }
      }
    }
    out.push_back(std::move(v));
  }
  for (Verdict& v : out) {
    if (!by_differences(v.claim)) {
      judge_spike(v, margins, results);
      continue;
    }
    if (v.differences.empty()) continue;  // its text says what is missing
    const bool pool = margins.pooled && v.claim.kind != ClaimKind::falls;
    const Spread own{sum_of_squares(v.differences), static_cast<double>(v.differences.size()) - 1, 1};
    judge_differences(v, margins, pool ? pooled[v.claim.metric] : own);
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
  if (std::isfinite(v.detectable)) out["detectable"] = v.detectable;
  return out;
}

}  // namespace moba::sweep
