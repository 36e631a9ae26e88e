// Strict reading of one section of a sweep file: unknown and repeated keys, wrong types and values are errors with their place.
#pragma once
#include <fmt/format.h>

#include <optional>
#include <string>
#include <vector>

#include "src/sweep/claim.h"
#include "src/train/yaml_tree.h"

namespace moba::sweep {

class StrictMap {
 public:
  // Reports what is not a section, and keys that are not in `keys`. `section`: its name in messages, "" at the top.
  StrictMap(const YamlNode& node, std::string section, const std::vector<std::string>& keys, std::vector<std::string>& errors);

  const YamlNode* at(std::string_view key) const;  // nullptr if absent or empty
  std::string text(std::string_view key) const;    // "" if absent
  std::optional<double> number(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key) const;
  const std::vector<YamlNode>& list(std::string_view key) const;                     // empty if absent
  bool one_of(std::string_view key, const std::vector<std::string>& allowed) const;  // reports what is absent or not among them
  bool in_range(std::string_view key, double value, double low, double high) const;  // reports what lies outside
  std::string where() const { return node_->where; }
  template <class... Args>
  void complain(const std::string& where, fmt::format_string<Args...> format, Args&&... args) const {
    report(where, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::string name(std::string_view key) const;
  void report(const std::string& where, const std::string& what) const;

  const YamlNode* node_;
  std::string section_;
  std::vector<std::string>* errors_;
};

std::optional<int64_t> whole_number(const YamlNode& node);
const std::vector<std::string>& metric_names();  // eval_loss, trailing_loss, train_loss
void check_metric(const YamlNode* node, const std::string& key, std::vector<std::string>& errors);
Margins read_margins(const YamlNode& node, const std::vector<std::string>& arms, std::vector<std::string>& errors);

}  // namespace moba::sweep
