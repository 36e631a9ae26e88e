// Every sweep file in recipes/: it reads, all its arms read, and a dry run predicts them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/interop/scratch_folder.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = MOBA_SOURCE_DIR;

std::string whole(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> sweep_names() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(kSource / "recipes"))
    if (entry.path().extension() == ".yaml" && whole(entry.path()).find("\n# Command: moba-sweep ") != std::string::npos)
      out.push_back(entry.path().stem().string());
  std::sort(out.begin(), out.end());
  return out;
}

class EverySweep : public testing::TestWithParam<std::string> {};

// In a folder without data: the table comes all the same, then the commands that make the data, and exit code 2.
TEST_P(EverySweep, DryRunPredictsEveryArm) {
  const ScratchFolder folder;
  fs::create_directory_symlink(kSource / "recipes", folder.path("recipes"));
  const std::string command =
      fmt::format("cd '{}' && '{}/moba-sweep' recipes/{}.yaml --dry-run >output.txt 2>&1", folder.path("."), MOBA_BIN_DIR, GetParam());
  const int status = std::system(command.c_str());
  const std::string text = whole(folder.path("output.txt"));
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 2) << text;
  EXPECT_NE(text.find("left to do: "), std::string::npos) << text;
  EXPECT_NE(text.find("make it with: tools/dataset "), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(folder.path("runs"))) << "a dry run wrote something";
}

TEST_P(EverySweep, HasItsCommandAndFixedMargins) {
  const std::string text = whole(kSource / "recipes" / (GetParam() + ".yaml"));
  EXPECT_NE(text.find("# Command: moba-sweep recipes/" + GetParam() + ".yaml"), std::string::npos);
  EXPECT_NE(text.find("margins:"), std::string::npos);
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 80);
}

INSTANTIATE_TEST_SUITE_P(Sweeps, EverySweep, testing::ValuesIn(sweep_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace moba::test
