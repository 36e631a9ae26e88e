// YAML as a plain tree in which every value knows where it came from, so that any later message can point at it.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moba {

struct YamlNode {
  enum class Kind { null, scalar, list, map } kind = Kind::null;
  std::string text;                                       // scalar
  bool quoted = false;                                    // scalar written in quotes: always a text
  bool rejected = false;                                  // was written, but wrong: reported once and then taken as absent
  std::string where;                                      // "recipes/a.yaml:3:5" or "command line 'a.b=c'"
  std::vector<YamlNode> items;                            // list
  std::vector<std::pair<std::string, YamlNode>> entries;  // map, in order of writing; a repeated key appears twice
  std::vector<std::string> key_where;                     // of entries

  // Out of line: a constructor in the class needs the pair of `entries` while that is still incomplete, which clang rejects.
  YamlNode();

  const YamlNode* get(std::string_view key) const;                             // entry of a map, or nullptr
  void set(const std::string& key, YamlNode value, const std::string& where);  // replaces or appends
  void erase(std::string_view key);
};

// Value at a dotted path such as "model.attention.type", or nullptr.
const YamlNode* find_path(const YamlNode& root, std::string_view path);
// Replaces or creates the value at a dotted path; sections in between are made where missing.
void set_path(YamlNode& root, std::string_view path, YamlNode value, const std::string& where);

// Parse errors are appended to `errors`, as "file:line:col: what", and give a null tree.
YamlNode parse_yaml_file(const std::string& path, std::vector<std::string>& errors);
YamlNode parse_yaml(const std::string& text, const std::string& name, std::vector<std::string>& errors);
// One "section.key=value" of the command line, applied onto root.
void apply_override(YamlNode& root, const std::string& argument, std::vector<std::string>& errors);

YamlNode yaml_scalar(std::string text);
// Block style, two spaces; lists of scalars in one line. Reads back as the same tree.
std::string emit_yaml(const YamlNode& root);

}  // namespace moba
