// Checking a recipe's tree against the table, and filling its defaults.
#include <fmt/format.h>

#include "src/data/pretokenizer.h"
#include "src/train/schema.h"
#include "src/train/values.h"

namespace moba {
namespace {

using K = KeyKind;
using Node = YamlNode;

std::string shown(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null: return "nothing";
    case Node::Kind::scalar: return fmt::format("{}'{}'", node.quoted ? "the quoted text " : "", node.text);
    case Node::Kind::list: return "a list";
    case Node::Kind::map: return "a section";
  }
  return "";
}

std::string join_key(std::string_view parent, std::string_view name) {
  return parent.empty() ? std::string(name) : fmt::format("{}.{}", parent, name);
}

std::vector<std::string> split_choices(std::string_view choices) {
  std::vector<std::string> out(1);
  for (char c : choices) {
    if (c == '|')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

std::string out_of_range(const KeySpec& key, double value, const Node& node) {
  if (value >= key.low && value <= key.high) return "";
  // "at least 1" is no answer to a value that is too large.
  if (value > key.high) return fmt::format("must be at most {:.15g}, got {}", key.high, node.text);
  return fmt::format("must be {}, got {}", range_text(key), node.text);
}

std::string check_number(const KeySpec& key, const Node& node) {
  const auto value = to_number(node);
  if (!value) return fmt::format("must be a number, got {}", shown(node));
  return out_of_range(key, *value, node);
}

std::string check_integer(const KeySpec& key, const Node& node) {
  const auto value = to_integer(node);
  if (!value) return fmt::format("must be a whole number, got {}", shown(node));
  return out_of_range(key, static_cast<double>(*value), node);
}

std::string check_choice(const KeySpec& key, const Node& node) {
  const std::vector<std::string> words = split_choices(key.choices);
  for (const std::string& word : words)
    if (node.kind == Node::Kind::scalar && node.text == word) return "";
  const std::string near = node.kind == Node::Kind::scalar ? nearest_word(node.text, words) : "";
  return fmt::format("must be {}, got {}{}", type_text(key), shown(node), near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near));
}

std::string check_list(const KeySpec& key, const Node& node, std::string (*check)(const KeySpec&, const Node&)) {
  if (node.kind != Node::Kind::list) return fmt::format("must be a {}, got {}", type_text(key), shown(node));
  for (const Node& item : node.items)
    if (std::string wrong = check(key, item); !wrong.empty()) return wrong;
  return "";
}

std::string check_text(const KeySpec&, const Node& node) {
  if (node.kind != Node::Kind::scalar) return fmt::format("must be a text, got {}", shown(node));
  if (valid_utf8_prefix(node.text) != node.text.size()) return "must be UTF-8 text";
  return node.text.empty() ? "must not be empty" : "";
}

// What is wrong with a value, or "". Sections are walked by the caller.
std::string check_value(const KeySpec& key, const Node& node) {
  switch (key.kind) {
    case K::section: return node.kind == Node::Kind::map ? "" : fmt::format("must be a section of keys, got {}", shown(node));
    case K::sections:
      if (node.kind != Node::Kind::list) return fmt::format("must be a list of sections, got {}", shown(node));
      return node.items.empty() && key.fallback == kRequired ? "must not be empty" : "";
    case K::text: return check_text(key, node);
    case K::texts: return node.kind == Node::Kind::list ? check_list(key, node, check_text) : check_text(key, node);
    case K::integer: return check_integer(key, node);
    case K::integers: return check_list(key, node, check_integer);
    case K::integer_or_auto: return node.kind == Node::Kind::scalar && node.text == "auto" ? "" : check_integer(key, node);
    case K::number: return check_number(key, node);
    case K::number_pair:
      if (node.kind != Node::Kind::list || node.items.size() != 2) return "must be a list of two numbers, such as [0.9, 0.95]";
      return check_list(key, node, check_number);
    case K::boolean: return to_boolean(node) ? "" : fmt::format("must be true or false, got {}", shown(node));
    case K::choice: return check_choice(key, node);
  }
  return "";
}

// "attention: full" means "attention: {type: full}".
Node short_form(const KeySpec& key, const Node& scalar) {
  Node section;
  section.where = scalar.where;
  section.set(std::string(key.choices), scalar, scalar.where);
  return section;
}

// `table` is the section's name in the table ("train.stages[]"), `shown_as` the same for people ("train.stages[1]").
void check_section(Node& section, const std::string& table, const std::string& shown_as, std::vector<std::string>& errors) {
  for (size_t i = 0; i < section.entries.size(); ++i) {
    auto& [name, value] = section.entries[i];
    const std::string full = join_key(shown_as, name);
    const auto complain = [&, &value = value](const std::string& where, const std::string& what) {
      errors.push_back(fmt::format("{}: {}: {}", where, full, what));
      value.kind = Node::Kind::null;
      value.rejected = true;
    };
    for (size_t before = 0; before < i; ++before) {
      if (section.entries[before].first != name) continue;
      errors.push_back(fmt::format("{}: {}: repeated key, first at {}", section.key_where[i], full, section.key_where[before]));
      break;
    }
    const KeySpec* key = find_key(join_key(table, name));
    if (!key) {
      const std::string near = nearest_key(table, name);
      complain(section.key_where[i],
               near.empty() ? "unknown key (moba-train --help-recipe lists all)" : fmt::format("unknown key (did you mean '{}'?)", near));
      continue;
    }
    if (value.kind == Node::Kind::null) continue;  // as if absent
    if (key->kind == K::section && !key->choices.empty() && value.kind == Node::Kind::scalar) value = short_form(*key, value);
    if (const std::string wrong = check_value(*key, value); !wrong.empty()) {
      complain(value.where, wrong);
      continue;
    }
    if (key->kind == K::section) check_section(value, std::string(key->name), full, errors);
    if (key->kind != K::sections) continue;
    for (size_t n = 0; n < value.items.size(); ++n) {
      Node& item = value.items[n];
      const std::string item_name = fmt::format("{}[{}]", full, n);
      if (item.kind == Node::Kind::map)
        check_section(item, fmt::format("{}[]", key->name), item_name, errors);
      else
        errors.push_back(fmt::format("{}: {}: must be a section of keys, got {}", item.where, item_name, shown(item)));
    }
  }
  for (const KeySpec& key : recipe_keys()) {
    if (key.fallback != kRequired || parent_name(key.name) != table) continue;
    const std::string leaf(leaf_name(key.name));
    const Node* value = section.get(leaf);
    if (value && (value->kind != Node::Kind::null || value->rejected)) continue;
    errors.push_back(
        fmt::format("{}: {}: missing, and it has no default ({}: {})", section.where, join_key(shown_as, leaf), type_text(key), key.doc));
  }
}

Node parse_default(const KeySpec& key) {
  std::vector<std::string> errors;
  Node node = key.fallback.empty() ? Node{} : parse_yaml(std::string(key.fallback), "default", errors);
  node.where = "default";
  return node;
}

Node section_with_defaults(const Node* given, std::string_view table) {
  Node out;
  out.kind = Node::Kind::map;
  if (given) out.where = given->where;
  for (const KeySpec& key : recipe_keys()) {
    if (parent_name(key.name) != table) continue;
    const std::string leaf(leaf_name(key.name));
    const Node* value = given ? given->get(leaf) : nullptr;
    if (value && value->kind == Node::Kind::null) value = nullptr;
    if (!value && key.fallback == kRequired) continue;
    Node filled;
    // Scalings and stage settings that nobody wrote stay null: their absence means "as the model".
    const bool optional_section = leaf == "rope_scaling" || key.name == "train.stages[].attention";
    if (key.kind == K::section && (value || !optional_section)) {
      filled = section_with_defaults(value, key.name);
    } else if (key.kind == K::sections && value) {
      filled.kind = Node::Kind::list;
      for (const Node& item : value->items) filled.items.push_back(section_with_defaults(&item, fmt::format("{}[]", key.name)));
    } else {
      filled = value ? *value : parse_default(key);
    }
    if (value) filled.where = value->where;
    if (key.name.find("[]") != std::string_view::npos && filled.kind == Node::Kind::null) continue;  // keeps lists short
    out.set(leaf, std::move(filled), "default");
  }
  return out;
}

}  // namespace

void check_against_table(YamlNode& root, std::vector<std::string>& errors) {
  if (root.kind == Node::Kind::null) root.kind = Node::Kind::map;
  if (root.kind != Node::Kind::map) {
    errors.push_back(fmt::format("{}: a recipe is a section of keys, got {}", root.where, shown(root)));
    return;
  }
  check_section(root, "", "", errors);
}

YamlNode with_defaults(const YamlNode& root) { return section_with_defaults(&root, ""); }

}  // namespace moba
