// moba-sweep as users meet it: a small sweep from its start to results, report and exit code.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/sweep/results.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code;
  std::string output;  // stdout and stderr
};

std::string whole(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class SweepCommand : public testing::Test {
 protected:
  void write_sweep(const std::string& rest) const {
    folder_.write("s.yaml", fmt::format("base: {}\noverrides: {{train.max_steps: 4, eval.interval: 2}}\n{}", path("tiny.yaml"), rest));
  }
  Outcome sweep(const std::string& arguments = "") const {
    Outcome outcome{-1, {}};
    FILE* pipe = ::popen(fmt::format("'{}/moba-sweep' {} {} 2>&1", MOBA_BIN_DIR, path("s.yaml"), arguments).c_str(), "r");
    char buffer[4096];
    for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.output.append(buffer, got);
    const int status = ::pclose(pipe);
    if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
    return outcome;
  }
  std::string path(const std::string& name) const { return folder_.path(name); }
  std::string report() const { return whole(path("runs/s/report/index.html")); }
  sweep::CsvTable results() const { return sweep::read_csv(path("runs/s/results.csv")); }

  TrainFolder folder_;
};

constexpr const char* kTwoArms = R"(arms:
  - {name: a}
  - {name: b, attn: full}
margins:
  equivalence: 0.5
  claims:
    - {name: a equals b, kind: equivalent, arm: a, reference: b}
)";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(SweepCommand, MissingDataIsNamedAndNeededByNoReport) {
  write_sweep(kTwoArms);
  const Outcome first = sweep();
  ASSERT_EQ(first.code, 0) << first.output;
  const std::string before = whole(path("runs/s/results.csv"));
  fs::rename(path("train.h5"), path("elsewhere.h5"));
  const Outcome again = sweep();
  EXPECT_EQ(again.code, 2);
  EXPECT_TRUE(has(again.output, "train.h5 does not exist; make it with: ")) << again.output;
  EXPECT_FALSE(has(again.output, "stale")) << again.output;
  const Outcome report = sweep("--report");
  EXPECT_EQ(report.code, 0) << report.output;
  EXPECT_EQ(whole(path("runs/s/results.csv")), before);
}

}  // namespace
}  // namespace moba::test
