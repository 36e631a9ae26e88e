#include "src/train/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace moba {
namespace {

constexpr int kMaxDepth = 16;  // a list that contains itself through an alias would never end

std::string place(const std::string& name, const YAML::Mark& mark) {
  if (mark.is_null()) return name;
  return fmt::format("{}:{}:{}", name, mark.line + 1, mark.column + 1);
}

// `command_line`: positions inside an argument mean nothing to its writer, so values carry the argument itself.
YamlNode convert(const YAML::Node& node, const std::string& name, bool command_line, int depth) {
  if (depth > kMaxDepth) throw YAML::ParserException(node.Mark(), "nested too deep");
  const auto where = [&](const YAML::Mark& mark) { return command_line ? name : place(name, mark); };
  YamlNode out;
  out.where = where(node.Mark());
  if (node.IsScalar()) {
    out.kind = YamlNode::Kind::scalar;
    out.text = node.Scalar();
    out.quoted = node.Tag() == "!";
  } else if (node.IsSequence()) {
    out.kind = YamlNode::Kind::list;
    for (const auto& item : node) out.items.push_back(convert(item, name, command_line, depth + 1));
  } else if (node.IsMap()) {
    out.kind = YamlNode::Kind::map;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) throw YAML::ParserException(entry.first.Mark(), "a key must be a plain name");
      out.entries.emplace_back(entry.first.Scalar(), convert(entry.second, name, command_line, depth + 1));
      out.key_where.push_back(where(entry.first.Mark()));
      // "key:" without a value has no mark of its own.
      if (entry.second.Mark().is_null()) out.entries.back().second.where = out.key_where.back();
    }
  }
  return out;
}

YamlNode parse(const std::string& text, const std::string& name, bool command_line, std::vector<std::string>& errors) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1) throw YAML::ParserException(documents[1].Mark(), "more than one document in the file");
    if (documents.empty()) return {};
    return convert(documents[0], name, command_line, 0);
  } catch (const YAML::Exception& e) {
    errors.push_back(fmt::format("{}: YAML syntax: {}", command_line ? name : place(name, e.mark), e.msg));
    return {};
  }
}

// A text that would read back as something else (a number, a truth value, null, a comment) is written in quotes.
std::string quoted_if_needed(const YamlNode& node) {
  const std::string& s = node.text;
  const bool plain = !s.empty() && !node.quoted && s.find_first_of(":#{}[],&*!|>'\"%@`\n\t") == std::string::npos && s.front() != '-' &&
                     s.front() != '?' && s.front() != ' ' && s.back() != ' ';
  const bool negative_number =
      !node.quoted && s.size() > 1 && s.front() == '-' && s.find_first_not_of("0123456789.eE+-") == std::string::npos;
  if (plain || negative_number) return s;
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else
      out += c;
  }
  return out + '"';
}

bool all_scalars(const YamlNode& list) {
  return std::all_of(list.items.begin(), list.items.end(), [](const YamlNode& n) { return n.kind == YamlNode::Kind::scalar; });
}

void emit(const YamlNode& node, int indent, std::string& out);

void emit_value(const YamlNode& value, int indent, std::string& out) {
  const bool empty_map = value.kind == YamlNode::Kind::map && value.entries.empty();
  switch (value.kind) {
    case YamlNode::Kind::null: out += " null\n"; return;
    case YamlNode::Kind::scalar: out += " " + quoted_if_needed(value) + "\n"; return;
    case YamlNode::Kind::list:
      if (all_scalars(value)) {
        out += " [";
        for (size_t i = 0; i < value.items.size(); ++i) out += (i ? ", " : "") + quoted_if_needed(value.items[i]);
        out += "]\n";
        return;
      }
      break;
    case YamlNode::Kind::map:
      if (empty_map) {
        out += " {}\n";
        return;
      }
      break;
  }
  out += "\n";
  emit(value, indent, out);
}

void emit(const YamlNode& node, int indent, std::string& out) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  for (const auto& [key, value] : node.entries) {
    out += pad + key + ":";
    emit_value(value, indent + 2, out);
  }
  for (const YamlNode& item : node.items) {
    std::string body;
    emit_value(item, indent + 2, body);
    // The first key of a map stands on the dash's line.
    if (item.kind == YamlNode::Kind::map && !item.entries.empty()) body = " " + body.substr(1 + static_cast<size_t>(indent) + 2);
    out += pad + "-" + body;
  }
}

}  // namespace

YamlNode::YamlNode() = default;

const YamlNode* YamlNode::get(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name == key) return &value;
  return nullptr;
}

void YamlNode::set(const std::string& key, YamlNode value, const std::string& from) {
  kind = Kind::map;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].first != key) continue;
    entries[i].second = std::move(value);
    key_where[i] = from;
    return;
  }
  entries.emplace_back(key, std::move(value));
  key_where.push_back(from);
}

void YamlNode::erase(std::string_view key) {
  for (size_t i = entries.size(); i-- > 0;) {
    if (entries[i].first != key) continue;
    entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(i));
    key_where.erase(key_where.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

const YamlNode* find_path(const YamlNode& root, std::string_view path) {
  const size_t dot = path.find('.');
  const YamlNode* child = root.get(path.substr(0, dot));
  if (!child || dot == std::string_view::npos) return child;
  return find_path(*child, path.substr(dot + 1));
}

void set_path(YamlNode& root, std::string_view path, YamlNode value, const std::string& where) {
  const size_t dot = path.find('.');
  const std::string key(path.substr(0, dot));
  if (dot == std::string_view::npos) return root.set(key, std::move(value), where);
  const YamlNode* child = root.get(key);
  if (!child || child->kind == YamlNode::Kind::null) {
    YamlNode section;
    section.kind = YamlNode::Kind::map;
    section.where = where;
    root.set(key, std::move(section), where);
  }
  for (auto& [name, section] : root.entries)
    if (name == key) return set_path(section, path.substr(dot + 1), std::move(value), where);
}

YamlNode parse_yaml_file(const std::string& path, std::vector<std::string>& errors) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    errors.push_back(fmt::format("{}: cannot read the recipe (recipes lie in recipes/)", path));
    return {};
  }
  return parse({std::istreambuf_iterator<char>(file), {}}, path, false, errors);
}

YamlNode parse_yaml(const std::string& text, const std::string& name, std::vector<std::string>& errors) {
  return parse(text, name, false, errors);
}

void apply_override(YamlNode& root, const std::string& argument, std::vector<std::string>& errors) {
  const size_t equals = argument.find('=');
  const std::string where = fmt::format("command line '{}'", argument);
  if (equals == std::string::npos || equals == 0) {
    errors.push_back(fmt::format("{}: not of the form section.key=value", where));
    return;
  }
  YamlNode value = parse(argument.substr(equals + 1), where, true, errors);
  if (value.where.empty()) value.where = where;
  set_path(root, argument.substr(0, equals), std::move(value), where);
}

YamlNode yaml_scalar(std::string text) {
  YamlNode node;
  node.kind = YamlNode::Kind::scalar;
  node.text = std::move(text);
  return node;
}

std::string emit_yaml(const YamlNode& root) {
  std::string out;
  emit(root, 0, out);
  return out;
}

}  // namespace moba
