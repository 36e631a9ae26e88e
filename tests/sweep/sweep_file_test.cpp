// Reading sweep files: what arms come out, and that every error is reported at once with its place.
#include "src/sweep/sweep_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "src/interop/safetensors.h"
#include "src/sweep/arm_run.h"
#include "src/sweep/record.h"
#include "src/train/run_folder.h"
#include "tests/train/train_support.h"

namespace moba::sweep {
namespace {

using test::TrainFolder;

std::string error_of(const std::string& file, const std::vector<std::string>& command_line = {}) {
  try {
    open_sweep(file, command_line);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

std::string sweep_text(const TrainFolder& folder, const std::string& rest) {
  return fmt::format("base: {}\n{}", folder.path("tiny.yaml"), rest);
}

TEST(SweepFile, ArmsTimesGridTimesSeeds) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, R"(overrides: {optimizer: {lr: 2e-3}}
grid: {model.attention.moba_topk: [2, 4]}
seeds: [7, 8]
arms:
  - {name: moba, overrides: {optimizer.lr: 1e-3}}
  - {name: last, hybrid_layers: [1]}
)"));
  const Sweep sweep = open_sweep(folder.path("s.yaml"), {"train.max_steps=5"});
  ASSERT_EQ(sweep.runs.size(), 8u);
  EXPECT_EQ(sweep.runs[0].name, "moba_moba_topk-2-s7");
  EXPECT_EQ(sweep.runs[5].name, "moba_moba_topk-4-s8");
  EXPECT_EQ(sweep.runs[0].recipe.optimizer.lr, 1e-3);  // the arm's word stands above the common one
  EXPECT_EQ(sweep.runs[2].recipe.optimizer.lr, 2e-3);
  EXPECT_EQ(sweep.runs[1].recipe.attention.base.moba.topk, 4);
  EXPECT_EQ(sweep.runs[2].recipe.attention.hybrid_layers, "1");
  EXPECT_EQ(sweep.runs[4].recipe.seed, 8u);
  EXPECT_EQ(sweep.runs[0].recipe.max_steps, 5);
  EXPECT_EQ(sweep.folder(), folder.path("runs") + "/s");
  EXPECT_EQ(sweep.runs[0].folder(), sweep.folder() + "/moba_moba_topk-2-s7");
  EXPECT_EQ(open_sweep(folder.path("s.yaml"), {"seeds=[3]", "run.name=other"}).runs[0].folder(),
            folder.path("runs") + "/other/moba_moba_topk-2-s3");
}

TEST(SweepFile, OverridesReachTheTrainingAsWritten) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, R"(arms:
  - name: a
    attn: full
    overrides:
      model.attention.schedule: [{until: 0.5, type: moba}, {until: 1, type: full}]
overrides: {train.max_tokens: 4096}
)"));
  const Sweep sweep = open_sweep(folder.path("s.yaml"), {"train.max_steps=3"});
  const std::vector<std::string>& arguments = sweep.runs.at(0).arguments;
  const auto has = [&](const std::string& text) { return std::find(arguments.begin(), arguments.end(), text) != arguments.end(); };
  EXPECT_TRUE(has("model.attention.schedule=[{until: 0.5, type: moba}, {until: 1, type: full}]"));
  EXPECT_TRUE(has("--attn"));
  EXPECT_TRUE(has("train.max_steps=3"));
  EXPECT_FALSE(has("train.max_tokens=4096"));  // the two lengths exclude each other, the command line has the last word
}

TEST(SweepFile, AllErrorsAtOnceWithTheirPlaces) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, R"(sedes: [1]
seeds: [1, 1, x]
arms:
  - {name: a/b}
  - {name: c, overides: {optimizer.lr: 1}}
  - {name: c, overrides: {run.seed: 3}}
margins:
  claims:
    - {name: n, kind: equal, arm: c}
    - {name: m, kind: equivalent, arm: d, reference: c}
)"));
  const std::string text = error_of(folder.path("s.yaml"));
  const std::string file = folder.path("s.yaml");
  for (const std::string& expected :
       {file + ":2:1: sedes: unknown key (did you mean 'seeds'?)", file + ":3:12: seeds: 1 is listed twice",
        file + ":3:15: seeds: must be whole", std::string("arm name 'a/b'"),
        file + ":6:15: arms[1].overides: unknown key (did you mean 'overrides'?)", std::string("arm name 'c' is used twice"),
        file + ":7:27: arms[2].overrides.run.seed: the sweep sets it", file + ":10:23: margins.claims[0].kind: 'equal'",
        file + ":11:40: margins.claims[1].arm: 'd'"})
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\n--- in ---\n" << text;
}

TEST(SweepFile, CommandLineKeysMayNotMakeArmsAlike) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, R"(overrides: {optimizer.lr: 1e-3, train.max_steps: 7}
grid: {model.attention.moba_topk: [2, 4]}
arms:
  - {name: a}
  - {name: b, overrides: {optimizer.lr: 2e-3, train.max_tokens: 4096}}
)"));
  const std::string file = folder.path("s.yaml");
  const std::string text =
      error_of(file, {"model.attention.moba_topk=3", "optimizer.lr=1e-2", "train.max_steps=5", "model.attention={type: full}"});
  for (const char* expected :
       {"command line 'model.attention.moba_topk=3': model.attention.moba_topk: arm 'a_moba_topk-2' sets model.attention.moba_topk itself",
        "command line 'optimizer.lr=1e-2': optimizer.lr: arm 'b_moba_topk-2' sets optimizer.lr itself",
        "command line 'train.max_steps=5': train.max_steps: arm 'b_moba_topk-2' sets train.max_tokens itself",
        "command line 'model.attention={type: full}': model.attention: arm 'a_moba_topk-2' sets model.attention.moba_topk itself"})
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\n--- in ---\n" << text;
  EXPECT_EQ(error_of(file, {"optimizer.weight_decay=0.2"}), "");
}

TEST(SweepFile, NoSeedsAreAnError) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, "arms: [{name: a}]\n"));
  for (const char* none : {"seeds=", "seeds=[]", "seeds=null"}) EXPECT_NE(error_of(folder.path("s.yaml"), {none}), "") << none;
}

TEST(SweepFile, RecipeErrorsStandAtTheOverride) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, R"(seeds: [1, 2]
arms:
  - {name: a, overrides: {model.attention.moba_topkk: 3}}
  - {name: b, overrides: {optimizer.lr: fast}}
  - {name: c, attn: fulll}
)"));
  const std::string text = error_of(folder.path("s.yaml")), file = folder.path("s.yaml");
  EXPECT_NE(text.find(file + ":4:27: model.attention.moba_topkk: unknown key (did you mean"), std::string::npos) << text;
  EXPECT_NE(text.find(file + ":5:27: optimizer.lr: must be a number"), std::string::npos) << text;
  EXPECT_NE(text.find("arm 'c': --attn fulll"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;  // not once more for the second seed
}

TEST(SweepFile, StaleRunsAreNamedAndRefused) {
  const TrainFolder folder;
  const auto file = [&](const char* topk) {
    folder.write(
        "s.yaml",
        sweep_text(folder, fmt::format("arms:\n  - {{name: a, overrides: {{model.attention.moba_topk: {}}}}}\n  - {{name: b}}\n", topk)));
    return open_sweep(folder.path("s.yaml"), {});
  };
  std::vector<std::string> notes;
  const Sweep first = file("2");
  Record record = open_record(first, notes);
  write_record(first, record);
  for (const ArmRun& run : first.runs) {
    make_run_folder(run.folder());
    folder.write("runs/s/" + run.name + "/metrics.jsonl", "");
  }
  EXPECT_NO_THROW(open_record(file("2"), notes));
  try {
    open_record(file("4"), notes);
    ADD_FAILURE() << "a changed arm was not refused";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("1 of its 2 runs are stale"), std::string::npos) << text;
    EXPECT_NE(text.find("a-s1: model.attention.moba_topk: 2 -> 4"), std::string::npos) << text;
    EXPECT_NE(text.find("rm -r " + first.runs[0].folder()), std::string::npos) << text;
  }
}

TEST(SweepFile, MovedResultsAreNotStale) {
  const TrainFolder folder;
  folder.write("s.yaml", sweep_text(folder, "arms: [{name: a}]\n"));
  std::vector<std::string> notes;
  const Sweep first = open_sweep(folder.path("s.yaml"), {});
  Record record = open_record(first, notes);
  write_record(first, record);
  record.json["runs"]["a-s1"]["run.output_dir"] = first.folder();  // older records name the place
  record.set_ended("a-s1", "killed");
  make_run_folder(first.runs[0].folder());
  folder.write("runs/s/a-s1/metrics.jsonl", "");
  std::filesystem::rename(folder.path("runs"), folder.path("moved"));
  const Sweep moved = open_sweep(folder.path("s.yaml"), {"run.output_dir=" + folder.path("moved")});
  EXPECT_EQ(moved.runs.at(0).folder(), folder.path("moved/s/a-s1"));
  EXPECT_NO_THROW(EXPECT_EQ(open_record(moved, notes).ended("a-s1"), "killed"));
}

// A Hugging Face directory of one tensor.
void write_start_model(const TrainFolder& folder, float value) {
  std::filesystem::create_directories(folder.path("start"));
  folder.write("start/config.json", "{}");
  write_safetensors(folder.path("start/model.safetensors"), {{"w", Tensor::from<float>({value}, {1})}}, {});
}

TEST(SweepFile, OtherStartWeightsMakeRunsStale) {
  const TrainFolder folder;
  write_start_model(folder, 1);
  folder.write("s.yaml",
               sweep_text(folder, fmt::format("overrides: {{model.init_from: {}}}\narms: [{{name: a}}]\n", folder.path("start"))));
  std::vector<std::string> notes;
  const Sweep first = open_sweep(folder.path("s.yaml"), {});
  Record record = open_record(first, notes);
  write_record(first, record);
  make_run_folder(first.runs[0].folder());
  folder.write("runs/s/a-s1/metrics.jsonl", "");
  EXPECT_NO_THROW(open_record(open_sweep(folder.path("s.yaml"), {}), notes));
  write_start_model(folder, 2);
  try {
    open_record(open_sweep(folder.path("s.yaml"), {}), notes);
    ADD_FAILURE() << "other start weights were not noticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("a-s1: content of model.init_from"), std::string::npos) << error.what();
  }
  std::filesystem::remove_all(folder.path("start"));  // what is not there can't differ
  EXPECT_NO_THROW(open_record(open_sweep(folder.path("s.yaml"), {}), notes));
}

}  // namespace
}  // namespace moba::sweep
