// The section `margins` of a sweep file.
#include <fmt/format.h>

#include <algorithm>

#include "src/sweep/strict_map.h"

namespace moba::sweep {
namespace {

constexpr std::pair<ClaimKind, const char*> kKinds[] = {{ClaimKind::equivalent, "equivalent"},
                                                        {ClaimKind::lower, "lower"},
                                                        {ClaimKind::higher, "higher"},
                                                        {ClaimKind::falls, "falls"},
                                                        {ClaimKind::no_spike, "no_spike"}};

std::vector<std::string> kind_names() {
  std::vector<std::string> out;
  for (const auto& [kind, name] : kKinds) out.emplace_back(name);
  return out;
}

void read_falling_arms(const StrictMap& map, const std::vector<std::string>& arms, Claim& claim) {
  for (const YamlNode& item : map.list("arms")) {
    if (std::find(arms.begin(), arms.end(), item.text) == arms.end())
      map.complain(item.where, "claim '{}': arms: there is no arm '{}'", claim.name, item.text);
    claim.arms.push_back(item.text);
  }
  if (claim.arms.size() < 3) map.complain(map.where(), "claim '{}': arms: a trend needs at least three arms, in their order", claim.name);
}

Claim read_claim(const YamlNode& node, const std::string& section, double equivalence, const std::vector<std::string>& arms,
                 std::vector<std::string>& errors) {
  const StrictMap map(node, section, {"name", "kind", "metric", "arm", "reference", "arms", "margin"}, errors);
  Claim claim;
  claim.where = map.where();
  claim.name = map.text("name");
  if (claim.name.empty()) map.complain(map.where(), "{}.name: missing; say in words what is claimed", section);
  if (map.one_of("kind", kind_names()))
    for (const auto& [kind, name] : kKinds)
      if (map.text("kind") == name) claim.kind = kind;
  if (map.at("metric")) claim.metric = map.text("metric");
  check_metric(map.at("metric"), section + ".metric", errors);
  claim.margin = map.number("margin").value_or(claim.kind == ClaimKind::equivalent ? equivalence : 0);
  map.in_range("margin", claim.margin, claim.kind == ClaimKind::equivalent ? 1e-9 : 0, 1e9);
  if (claim.kind == ClaimKind::falls) {
    read_falling_arms(map, arms, claim);
    return claim;
  }
  if (map.one_of("arm", arms)) claim.arm = map.text("arm");
  if (claim.kind == ClaimKind::no_spike) return claim;
  if (map.one_of("reference", arms)) claim.reference = map.text("reference");
  if (!claim.arm.empty() && claim.arm == claim.reference)
    map.complain(map.where(), "claim '{}': arm and reference are both '{}'", claim.name, claim.arm);
  return claim;
}

}  // namespace

const char* claim_kind_name(ClaimKind kind) {
  for (const auto& [k, name] : kKinds)
    if (k == kind) return name;
  return "";
}

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names = {"eval_loss", "trailing_loss", "train_loss"};
  return names;
}

void check_metric(const YamlNode* node, const std::string& key, std::vector<std::string>& errors) {
  if (!node || std::find(metric_names().begin(), metric_names().end(), node->text) != metric_names().end()) return;
  errors.push_back(fmt::format("{}: {}: must be one of {}, got '{}'", node->where, key, fmt::join(metric_names(), ", "), node->text));
}

Margins read_margins(const YamlNode& node, const std::vector<std::string>& arms, std::vector<std::string>& errors) {
  const StrictMap map(node, "margins", {"equivalence", "confidence", "spread", "spike", "claims"}, errors);
  Margins out;
  out.equivalence = map.number("equivalence").value_or(out.equivalence);
  map.in_range("equivalence", out.equivalence, 1e-9, 1e9);
  out.confidence = map.number("confidence").value_or(out.confidence);
  map.in_range("confidence", out.confidence, 0.5, 0.9999);
  if (map.at("spread") && map.one_of("spread", {"own", "pooled"})) out.pooled = map.text("spread") == "pooled";
  if (const YamlNode* spike = map.at("spike")) {
    const StrictMap s(*spike, "margins.spike", {"steps", "sigmas"}, errors);
    out.spike_steps = s.integer("steps").value_or(out.spike_steps);
    s.in_range("steps", static_cast<double>(out.spike_steps), 2, 1e9);
    out.spike_sigmas = s.number("sigmas").value_or(out.spike_sigmas);
    s.in_range("sigmas", out.spike_sigmas, 0, 1e9);
  }
  for (size_t i = 0; const YamlNode& item : map.list("claims"))
    out.claims.push_back(read_claim(item, fmt::format("margins.claims[{}]", i++), out.equivalence, arms, errors));
  return out;
}

}  // namespace moba::sweep
