// Scalars of a YAML tree as numbers and truth values, by one strict rule. A quoted scalar is always a text.
#pragma once
#include <cstdint>
#include <optional>

#include "src/train/yaml_tree.h"

namespace moba {

std::optional<double> to_number(const YamlNode& node);    // finite decimal: 3, 0.1, 6e-4
std::optional<int64_t> to_integer(const YamlNode& node);  // also 10_000 and 1e9; exact
std::optional<bool> to_boolean(const YamlNode& node);     // true, false

}  // namespace moba
