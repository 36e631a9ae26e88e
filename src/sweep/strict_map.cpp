#include "src/sweep/strict_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/train/schema.h"
#include "src/train/values.h"

namespace moba::sweep {

StrictMap::StrictMap(const YamlNode& node, std::string section, const std::vector<std::string>& keys, std::vector<std::string>& errors)
    : node_(&node), section_(std::move(section)), errors_(&errors) {
  if (node.kind != YamlNode::Kind::map) {
    report(node.where, fmt::format("{}must be a section of keys: {}", section_.empty() ? "" : section_ + ": ", fmt::join(keys, ", ")));
    return;
  }
  for (size_t i = 0; i < node.entries.size(); ++i) {
    const std::string& key = node.entries[i].first;
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      const std::string near = nearest_word(key, keys);
      const std::string hint = near.empty() ? fmt::format("keys here: {}", fmt::join(keys, ", ")) : fmt::format("did you mean '{}'?", near);
      report(node.key_where[i], fmt::format("{}: unknown key ({})", name(key), hint));
    }
    for (size_t before = 0; before < i; ++before)
      if (node.entries[before].first == key)
        report(node.key_where[i], fmt::format("{}: repeated key, first at {}", name(key), node.key_where[before]));
  }
}

std::string StrictMap::name(std::string_view key) const {
  return section_.empty() ? std::string(key) : fmt::format("{}.{}", section_, key);
}

void StrictMap::report(const std::string& where, const std::string& what) const { errors_->push_back(fmt::format("{}: {}", where, what)); }

const YamlNode* StrictMap::at(std::string_view key) const {
  const YamlNode* value = node_->get(key);
  return value && value->kind != YamlNode::Kind::null ? value : nullptr;
}

std::string StrictMap::text(std::string_view key) const {
  const YamlNode* value = at(key);
  if (!value) return "";
  if (value->kind != YamlNode::Kind::scalar || value->text.empty()) {
    report(value->where, fmt::format("{}: must be a text", name(key)));
    return "";
  }
  return value->text;
}

std::optional<double> StrictMap::number(std::string_view key) const {
  const YamlNode* value = at(key);
  if (!value) return {};
  const auto number = to_number(*value);
  if (!number) report(value->where, fmt::format("{}: must be a number", name(key)));
  return number;
}

std::optional<int64_t> StrictMap::integer(std::string_view key) const {
  const YamlNode* value = at(key);
  if (!value) return {};
  const auto number = to_integer(*value);
  if (!number) report(value->where, fmt::format("{}: must be a whole number", name(key)));
  return number;
}

const std::vector<YamlNode>& StrictMap::list(std::string_view key) const {
  static const std::vector<YamlNode> none;
  const YamlNode* value = at(key);
  if (!value) return none;
  if (value->kind != YamlNode::Kind::list) report(value->where, fmt::format("{}: must be a list", name(key)));
  return value->items;
}

bool StrictMap::one_of(std::string_view key, const std::vector<std::string>& allowed) const {
  const YamlNode* value = at(key);
  const std::string written = value ? text(key) : "";
  if (std::find(allowed.begin(), allowed.end(), written) != allowed.end() && !written.empty()) return true;
  const std::string near = nearest_word(written, allowed);
  if (!value)
    report(node_->where, fmt::format("{}: missing", name(key)));
  else if (!near.empty())
    report(value->where, fmt::format("{}: '{}' is not known (did you mean '{}'?)", name(key), written, near));
  else
    report(value->where, fmt::format("{}: '{}' is not one of {}", name(key), written, fmt::join(allowed, ", ")));
  return false;
}

bool StrictMap::in_range(std::string_view key, double value, double low, double high) const {
  if (value >= low && value <= high) return true;
  report(at(key) ? at(key)->where : node_->where, fmt::format("{}: must be from {} to {}, got {}", name(key), low, high, value));
  return false;
}

std::optional<int64_t> whole_number(const YamlNode& node) { return to_integer(node); }

}  // namespace moba::sweep
