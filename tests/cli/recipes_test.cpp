// Every recipe in recipes/: it reads, predicts its cost, and names a command that exists for each file it lacks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>

#include "tests/train/train_support.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = MOBA_SOURCE_DIR;

// Sweep files lie there too; tests/sweep looks at them.
bool is_sweep(const fs::path& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("base:")) return true;
  return false;
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(kSource / "recipes"))
    if (entry.path().extension() == ".yaml" && !is_sweep(entry.path())) out.push_back(entry.path().stem().string());
  std::sort(out.begin(), out.end());
  return out;
}

struct Outcome {
  int code;
  std::vector<std::string> lines;
};

// In a folder that holds only a link to recipes/: no data is there, whatever the checkout holds.
Outcome dry_run(const TrainFolder& folder, const std::string& name) {
  const std::string empty = folder.path("empty"), log = folder.path("output.txt");
  fs::create_directories(empty);
  fs::create_directory_symlink(kSource / "recipes", empty + "/recipes");
  const std::string command =
      fmt::format("cd '{}' && '{}/moba-train' recipes/{}.yaml --dry-run >'{}' 2>&1", empty, MOBA_BIN_DIR, name, log);
  const int status = std::system(command.c_str());
  Outcome out{WIFEXITED(status) ? WEXITSTATUS(status) : -1, {}};
  std::ifstream file(log);
  for (std::string line; std::getline(file, line);) out.lines.push_back(line);
  return out;
}

bool command_exists(const std::string& command) {
  static const std::regex script("(tools/[a-z_]+)( [a-z_]+)?");
  static const std::regex training("moba-train (recipes/[^ ]+\\.yaml)( --attn [a-z_]+ run\\.name=[^ ]+)?");
  std::smatch parts;
  if (std::regex_match(command, parts, script) || std::regex_match(command, parts, training)) return fs::exists(kSource / parts[1].str());
  return command.starts_with("moba-data prepare ");
}

class EveryRecipe : public testing::TestWithParam<std::string> {};

TEST_P(EveryRecipe, DryRunNamesTheCommandForEachMissingFile) {
  const TrainFolder folder;
  const Outcome run = dry_run(folder, GetParam());
  EXPECT_EQ(run.code, 2);
  const auto count = [&](const char* begin) {
    return std::count_if(run.lines.begin(), run.lines.end(), [&](const std::string& line) { return line.starts_with(begin); });
  };
  EXPECT_EQ(count("  parameters "), 1);
  EXPECT_EQ(count("  time, predicted "), 1);
  int missing = 0;
  const std::string place = fmt::format("recipes/{}.yaml:", GetParam()), remedy = "make it with: ";
  for (const std::string& line : run.lines) {
    if (!line.starts_with(place)) continue;
    ++missing;
    const size_t at = line.find(remedy);
    if (at != std::string::npos)
      EXPECT_TRUE(command_exists(line.substr(at + remedy.size()))) << line;
    else
      EXPECT_NE(line.find("models/"), std::string::npos) << "no recipe makes this model: " << line;
  }
  EXPECT_GE(missing, 2);  // training and validation data
}

TEST_P(EveryRecipe, HasItsCommandInAShortHeader) {
  std::ifstream file(kSource / "recipes" / (GetParam() + ".yaml"));
  int lines = 0;
  bool in_header = true, has_command = false;
  for (std::string line; std::getline(file, line); ++lines) {
    in_header = in_header && line.starts_with("#");
    has_command = has_command || (in_header && line.starts_with("# Command: moba-train recipes/" + GetParam() + ".yaml"));
  }
  EXPECT_TRUE(has_command);
  EXPECT_LE(lines, 80);
}

INSTANTIATE_TEST_SUITE_P(Recipes, EveryRecipe, testing::ValuesIn(recipe_names()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

}  // namespace
}  // namespace moba::test
