// moba-bench suite from outside: figures as ratios, and a baseline that notices loss.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/interop/scratch_folder.h"
#include "tests/support/shell.h"

namespace moba::test {
namespace {

constexpr const char* kCase = "product 768 x 768 x 2048, weight gradient";

Outcome bench(const std::string& arguments) { return shell(fmt::format("'{}/moba-bench' {}", MOBA_BIN_DIR, arguments)); }
Outcome suite(const std::string& arguments) { return bench("suite " + arguments); }

TEST(MobaBench, SuiteComparesWithABaselineByRatios) {
  const ScratchFolder folder;
  const std::string only = fmt::format("--only '{}'", kCase), baseline = folder.root() + "/baseline.json";
  const Outcome first = suite(only + " --json");
  ASSERT_EQ(first.code, 0) << first.output;
  auto figures = nlohmann::json::parse(first.output).at("baseline");
  ASSERT_EQ(figures.size(), 1u);
  double& ratio = figures.begin().value()[kCase]["efficiency"].get_ref<double&>();
  EXPECT_GT(ratio, 0.01);
  EXPECT_LT(ratio, 1.5);
  ratio /= 100;
  std::ofstream(baseline) << figures;
  EXPECT_EQ(suite(only + " --baseline " + baseline).code, 0);
  ratio *= 10000;
  std::ofstream(baseline) << figures;
  const Outcome slow = suite(only + " --baseline " + baseline);
  EXPECT_EQ(slow.code, 1) << slow.output;
  EXPECT_NE(slow.output.find("SLOW"), std::string::npos) << slow.output;
}

TEST(MobaBench, ImpossibleSizesAreASentence) {
  const Outcome large = bench("gemm --m 100000000 --n 100000000 --k 1000");
  EXPECT_EQ(large.code, 2) << large.output;
  EXPECT_NE(large.output.find("not enough memory"), std::string::npos) << large.output;
  const Outcome none = bench("gemm --m 0");
  EXPECT_EQ(none.code, 2);
  EXPECT_NE(none.output.find("--m: must be above 0, got 0\n"), std::string::npos) << none.output;
}

TEST(MobaBench, SuiteRefusesWhatItCannotRead) {
  const ScratchFolder folder;
  EXPECT_EQ(suite("--only 'no such case'").code, 2);
  EXPECT_EQ(suite("--baseline none.json").code, 2);
  folder.write("torn.json", "{\"avx2\": {");
  const Outcome torn = suite("--only product --baseline " + folder.root() + "/torn.json");
  EXPECT_EQ(torn.code, 2);
  EXPECT_NE(torn.output.find("torn.json"), std::string::npos) << torn.output;
}

}  // namespace
}  // namespace moba::test
