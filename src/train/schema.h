// The table of every recipe key: the one source of reading, checking, --help-recipe, --explain, docs/recipes.md and
// recipes/schema.json.
#pragma once
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/train/yaml_tree.h"

namespace moba {

enum class KeyKind {
  section,   // a map of further keys
  sections,  // a list of maps; its keys are named "parent[].key"
  text,
  texts,  // one text or a list of them
  integer,
  integers,  // a list
  integer_or_auto,
  number,
  number_pair,  // a list of two
  boolean,
  choice,  // one of `choices`
};

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

struct KeySpec {
  std::string_view name;  // "train.stages[].until"
  KeyKind kind;
  std::string_view fallback;                // default as YAML; kRequired, or empty where absence has a meaning of its own (said in doc)
  std::string_view doc;                     // one line
  double low = -kNoLimit, high = kNoLimit;  // allowed range, both ends included
  std::string_view choices = {};            // "full|moba|window"; of a section: the key that a plain value stands for
};
inline constexpr std::string_view kRequired = "!";

std::span<const KeySpec> recipe_keys();               // in the order of documentation; a section comes before its keys
const KeySpec* find_key(std::string_view name);       // nullptr if there is none
std::string_view leaf_name(std::string_view name);    // "until"
std::string_view parent_name(std::string_view name);  // "train.stages[]"
std::string type_text(const KeySpec& key);            // "whole number", "full | moba | window"
std::string range_text(const KeySpec& key);           // "at least 1", "" if any
std::string default_text(const KeySpec& key);         // "required", "none", "0.1"

// The key a mistyped name most likely meant, or "". `parent`: section in which it was written ("" = top level).
std::string nearest_key(std::string_view parent, std::string_view written);
// The nearest of several words, or "".
std::string nearest_word(std::string_view written, const std::vector<std::string>& words);

// Checks a tree against the table. Every wrong entry gives one error "where: key: what is wrong" and becomes null.
void check_against_table(YamlNode& root, std::vector<std::string>& errors);
// Fills defaults: a tree with every key of the table, in the table's order (absent optional ones as null).
YamlNode with_defaults(const YamlNode& root);

std::string schema_help();                           // moba-train --help-recipe
std::string schema_explain(const std::string& key);  // moba-train --explain KEY; Error with the nearest name if unknown
std::string schema_markdown();                       // docs/recipes.md
std::string schema_json();                           // recipes/schema.json (JSON Schema, for completion in editors)

}  // namespace moba
