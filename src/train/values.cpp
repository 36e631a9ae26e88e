#include "src/train/values.h"

#include <charconv>
#include <cmath>

namespace moba {

std::optional<double> to_number(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::scalar || node.quoted) return {};
  std::string text;
  for (char c : node.text)
    if (c != '_') text += c;
  if (text.starts_with('+')) text.erase(0, 1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

std::optional<int64_t> to_integer(const YamlNode& node) {
  const auto value = to_number(node);
  constexpr double kExact = 9007199254740992;  // 2^53: beyond, a double skips integers
  if (!value || *value != std::floor(*value) || std::abs(*value) > kExact) return {};
  return static_cast<int64_t>(*value);
}

std::optional<bool> to_boolean(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::scalar || node.quoted) return {};
  if (node.text == "true") return true;
  if (node.text == "false") return false;
  return {};
}

}  // namespace moba
