// moba-sweep as users meet it: a small sweep from its start to results, report and exit code.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/sweep/results.h"
#include "tests/support/shell.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

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
    return shell(fmt::format("'{}/moba-sweep' {} {}", MOBA_BIN_DIR, path("s.yaml"), arguments));
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

TEST_F(SweepCommand, FailedRunsSayWhy) {
  // Weight decay of more than 1 a step makes the weights grow a hundredfold each time.
  write_sweep(R"(arms:
  - {name: a}
  - {name: bad, overrides: {optimizer.lr: 100, optimizer.weight_decay: 1, lr_scheduler.name: constant, train.max_steps: 60}}
)");
  const Outcome outcome = sweep();
  EXPECT_EQ(outcome.code, 4) << outcome.output;
  EXPECT_EQ(results().rows.at(0).at("status"), "finished");
  EXPECT_EQ(results().rows.at(1).at("status"), "failed");
  const std::string why = results().rows.at(1).at("ended");
  EXPECT_TRUE(why.starts_with("not finite at step ")) << why;
  EXPECT_TRUE(has(report(), "failed: " + why));
  EXPECT_EQ(nlohmann::json::parse(whole(path("runs/s/sweep.json")))["ended"], nlohmann::json({{"bad-s1", why}}));
}

TEST_F(SweepCommand, ReportTellsHowTheRunsWereMade) {
  write_sweep(kTwoArms);
  ASSERT_EQ(sweep("--report").code, 0);
  EXPECT_TRUE(has(report(), "No run was started yet"));
  EXPECT_FALSE(has(report(), "Fixed in the sweep file before the runs"));
  ASSERT_EQ(sweep("'seeds=[1]'").code, 0);
  EXPECT_TRUE(has(report(), "Fixed in the sweep file before the runs"));
  std::string changed = kTwoArms;
  write_sweep(changed.replace(changed.find("0.5"), 3, "0.25"));
  ASSERT_EQ(sweep("--report").code, 0);
  EXPECT_TRUE(has(report(), "s.yaml &#x27;seeds=[1]&#x27;</code>")) << "the command is that of the runs, quoted for a shell";
  EXPECT_FALSE(has(report(), "Fixed in the sweep file before the runs"));
  EXPECT_TRUE(has(report(), "equivalence: 0.5\n") && has(report(), "equivalence: 0.25\n"));
  std::string machine = whole(path("runs/s/a-s1/run.json"));
  machine.replace(machine.find("\"cpu\": \""), 8, "\"cpu\": \"Old ");
  folder_.write("runs/s/a-s1/run.json", machine);
  ASSERT_EQ(sweep("--report").code, 0);
  EXPECT_TRUE(has(report(), "Machines: ") && has(report(), "Old "));
}

TEST_F(SweepCommand, OnlyTheArmsAskedForRun) {
  write_sweep(kTwoArms);
  const Outcome unknown = sweep("--only a,c");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(has(unknown.output, "--only: there is no arm 'c'; arms are a, b")) << unknown.output;
  const Outcome one = sweep("--only a");
  ASSERT_EQ(one.code, 0) << one.output;
  EXPECT_TRUE(has(one.output, "a equals b: not run")) << one.output;
  EXPECT_TRUE(has(one.output, "not asked for")) << one.output;
  EXPECT_FALSE(fs::exists(path("runs/s/b-s1")));
  const Outcome other = sweep("--only b");
  ASSERT_EQ(other.code, 0) << other.output;
  EXPECT_EQ(results().rows.at(0).at("status") + results().rows.at(1).at("status"), "finishedfinished");
  EXPECT_FALSE(has(report(), "differ from those"));
}

TEST_F(SweepCommand, ReportTellsAStrangerWhatTheSweepIsAbout) {
  write_sweep(kTwoArms);
  folder_.write("s.yaml", "# Two small arms: MoBA beside full attention.\n# Command: moba-sweep s.yaml\n" + whole(path("s.yaml")));
  ASSERT_EQ(sweep("--report").code, 0);
  EXPECT_TRUE(has(report(), "<h1>Two small arms</h1><p>MoBA beside full attention.</p>"));
  EXPECT_TRUE(has(report(), "<th class=w>what it changes</th>") && has(report(), "<td class=w>attn: full</td>"));
  EXPECT_TRUE(has(report(), path("train.h5") + "</td><td class=n>20,"));
  EXPECT_TRUE(has(report(), "Common to all arms: train.max_steps: 4"));
}

TEST_F(SweepCommand, DiskIsPredictedWithoutWhatIsThere) {
  write_sweep("arms: [{name: a}]\ngrid: {checkpoint.interval: [2]}\n");
  const Outcome nowhere = sweep("run.output_dir=/proc/x");
  EXPECT_EQ(nowhere.code, 5);
  EXPECT_TRUE(has(nowhere.output, "/proc can't hold files")) << nowhere.output;
  const auto disk = [&] {
    const std::string text = sweep("--dry-run").output;
    const size_t at = text.find("disk ") + 5;
    EXPECT_NE(text.find(" MiB (free", at), std::string::npos) << text;
    return std::stod(text.substr(at));
  };
  const double whole = disk();
  EXPECT_GT(whole, 0.3);
  ASSERT_EQ(sweep().code, 0);
  fs::remove_all(path("runs/s/a_interval-2-s1/checkpoints/step-00000004"));  // half done: one of two checkpoints is there
  EXPECT_NEAR(disk(), whole / 2, 0.1);
}

TEST_F(SweepCommand, LaterSeedsAreNoted) {
  write_sweep(kTwoArms);
  ASSERT_EQ(sweep("'seeds=[1]'").code, 0);
  EXPECT_FALSE(has(report(), "seeds were"));
  const Outcome more = sweep("'seeds=[1, 2]'");
  EXPECT_EQ(more.code, 0);
  EXPECT_TRUE(has(more.output, "seeds differ from those of the first start (then [1], now 1, 2)")) << more.output;
  EXPECT_TRUE(has(report(), "The seeds were 1 when the first run started and are 1, 2 now"));
}

}  // namespace
}  // namespace moba::test
