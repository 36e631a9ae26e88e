// moba-sweep fit on results made by hand.
#include "src/sweep/fit_command.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/interop/scratch_folder.h"

namespace moba::sweep {
namespace {

// A results.csv with `sizes` sizes of each group, on one law.
std::string table(const std::vector<std::pair<std::string, int>>& groups) {
  std::string out = "arm,group,status,eval_loss,flops_6nd,flops_with_attention\n";
  for (const auto& [group, sizes] : groups)
    for (int i = 0; i < sizes; ++i) {
      const double flops = 1e12 * std::pow(4.0, i), loss = 3 * std::pow(flops / kFlopsPerPetaflopDay, -0.06) * (1 + 1e-3 * (i % 2));
      out += fmt::format("{0}{1},{0},finished,{2},{3},{3}\n", group, i, loss, flops);
    }
  return out;
}

class FitCommandTest : public testing::Test {
 protected:
  std::string fit(const std::string& csv, bool json = false) {
    folder_.write("results.csv", csv);
    FitCommand command;
    command.results = folder_.path("results.csv");
    command.samples = 20;
    command.json = json;
    testing::internal::CaptureStdout();
    try {
      run_fit(command);
    } catch (const Error& error) {
      return testing::internal::GetCapturedStdout() + error.what();
    }
    return testing::internal::GetCapturedStdout();
  }
  test::ScratchFolder folder_;
};

TEST_F(FitCommandTest, ShortGroupsAreLeftOutWithANote) {
  const std::string text = fit(table({{"moba", 5}, {"full", 2}}));
  EXPECT_NE(text.find("  moba "), std::string::npos) << text;
  EXPECT_NE(text.find("group 'full' is left out: 2 different FLOPs, a law needs at least 3"), std::string::npos) << text;
  EXPECT_NE(fit(table({{"full", 2}})).find("no group has the 3 different FLOPs that a law needs"), std::string::npos);
}

TEST_F(FitCommandTest, ThreeSizesHaveALawAndNoInterval) {
  EXPECT_NE(fit(table({{"moba", 3}})).find("too few sizes for intervals"), std::string::npos);
  const auto power = nlohmann::json::parse(fit(table({{"moba", 4}}), true))["groups"]["moba"];
  EXPECT_TRUE(power["power"]["b_interval"][0].is_number());
  EXPECT_TRUE(power["with_irreducible"]["b_interval"].is_null());
}

TEST_F(FitCommandTest, BadCellsAreNamedByFileAndRow) {
  const std::string text = fit(table({{"moba", 2}}) + "m3,moba,finished,low,1e15,1e15\n");
  EXPECT_NE(text.find(folder_.path("results.csv") + ": row 4 (m3): eval_loss: not a number: 'low'"), std::string::npos) << text;
  EXPECT_NE(fit("arm,status\na,finished\n").find(folder_.path("results.csv") + ": no column 'group'"), std::string::npos);
}

}  // namespace
}  // namespace moba::sweep
