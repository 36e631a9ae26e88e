// The table of keys and the files generated from it.
#include "src/train/schema.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/common/check.h"

namespace moba::test {
namespace {

std::string committed(const std::string& name) {
  std::ifstream file(std::string(MOBA_SOURCE_DIR) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Schema, CommittedFilesAreUpToDate) {
  EXPECT_TRUE(committed("recipes/schema.json") == schema_json()) << "run: moba-train --dump-schema json > recipes/schema.json";
  EXPECT_TRUE(committed("docs/recipes.md") == schema_markdown()) << "run: moba-train --dump-schema markdown > docs/recipes.md";
}

TEST(Schema, KeysAreUniqueAndInsideSections) {
  std::set<std::string> names;
  for (const KeySpec& key : recipe_keys()) {
    const std::string name(key.name);
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_FALSE(key.doc.empty()) << name;
    std::string parent(parent_name(name));
    if (parent.empty()) continue;
    if (parent.ends_with("[]")) parent.resize(parent.size() - 2);
    EXPECT_TRUE(names.contains(parent)) << name << " comes before its section";
  }
}

TEST(Schema, DefaultsPassTheirOwnChecks) {
  for (const KeySpec& key : recipe_keys()) {
    if (key.fallback.empty() || key.fallback == kRequired || key.name.find("[]") != std::string_view::npos) continue;
    std::vector<std::string> errors;
    YamlNode root, value = parse_yaml(std::string(key.fallback), "default", errors);
    set_path(root, key.name, value, "default");
    check_against_table(root, errors);
    for (const std::string& e : errors) EXPECT_EQ(e.find(std::string(key.name) + ": must"), std::string::npos) << e;
  }
}

TEST(Schema, HelpAndExplainNameEveryKey) {
  const std::string help = schema_help();
  for (const KeySpec& key : recipe_keys()) {
    EXPECT_NE(help.find(std::string(key.name)), std::string::npos) << key.name;
    EXPECT_NE(schema_explain(std::string(key.name)).find(std::string(key.doc)), std::string::npos);
  }
  try {
    schema_explain("optimizer.lrr");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "--explain optimizer.lrr: unknown key (did you mean 'optimizer.lr'?)");
  }
}

TEST(Schema, JsonSchemaForbidsUnknownKeysEverywhere) {
  const auto schema = nlohmann::json::parse(schema_json());
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["properties"]["model"]["properties"]["attention"]["additionalProperties"], false);
  EXPECT_EQ(schema["properties"]["data"]["properties"]["train"]["items"]["additionalProperties"], false);
}

}  // namespace
}  // namespace moba::test
