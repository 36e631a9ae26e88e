// moba-train as users meet it: exit codes, the run's folder, resuming, signals.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/train/train_support.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A moba-train process with its output in a file.
class Program {
 public:
  Program(const TrainFolder& folder, std::vector<std::string> arguments) {
    static int count = 0;
    log_ = folder.path(fmt::format("output-{}.txt", ++count));
    arguments.insert(arguments.begin(), std::string(MOBA_BIN_DIR) + "/moba-train");
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    if (!std::freopen(log_.c_str(), "w", stdout) || ::dup2(1, 2) < 0) ::_exit(99);
    ::execv(argv[0], argv.data());
    ::_exit(98);
  }
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  std::string output() const { return text_of(log_); }
  void send(int signal) const { ::kill(pid_, signal); }
  // Sends once `text` has been printed; false if that takes too long.
  bool send_after(const std::string& text, int signal) const {
    for (int i = 0; i < 3000; ++i) {
      if (output().find(text) != std::string::npos) {
        send(signal);
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    send(SIGKILL);
    return false;
  }

 private:
  std::string log_;
  pid_t pid_;
};

std::vector<nlohmann::json> metrics(const TrainFolder& folder) {
  std::vector<nlohmann::json> out;
  std::ifstream file(folder.path("runs/tiny/metrics.jsonl"));
  for (std::string line; std::getline(file, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

// What must be equal in two runs of the same recipe.
std::vector<nlohmann::json> comparable(const TrainFolder& folder) {
  std::vector<nlohmann::json> out = metrics(folder);
  for (auto& line : out)
    for (const char* key : {"perf/tokens_per_sec", "perf/step_ms", "perf/mfu", "memory/peak_rss_bytes"}) line.erase(key);
  return out;
}

std::string weights(const TrainFolder& folder) { return text_of(folder.path("runs/tiny/checkpoints/latest/model.safetensors")); }

TEST(MobaTrain, RunsLeavesItsFolderAndIsThenFinished) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml")});
  ASSERT_EQ(run.wait(), 0) << run.output();
  for (const char* name : {"recipe.yaml", "resolved.yaml", "run.json", "train.log", "metrics.jsonl", "tb", "checkpoints/latest/config.json",
                           "checkpoints/step-00000020/MANIFEST.json"})
    EXPECT_TRUE(fs::exists(folder.path("runs/tiny/") + name)) << name;
  EXPECT_EQ(text_of(folder.path("runs/tiny/recipe.yaml")), folder.recipe_text());
  const auto lines = metrics(folder);
  ASSERT_EQ(lines.size(), 22u);  // 20 steps, 2 evaluations
  for (const char* key : {"step", "tokens", "train/loss", "train/grad_norm", "train/learning_rate", "perf/tokens_per_sec", "perf/step_ms",
                          "perf/mfu", "memory/peak_rss_bytes", "attention/type"})
    EXPECT_TRUE(lines[0].contains(key)) << key;
  EXPECT_EQ(lines[0]["attention/type"], "moba");
  EXPECT_EQ(lines[0]["tokens"], 1024);
  for (const char* key : {"eval/loss", "eval/trailing_loss", "eval/position_loss"}) EXPECT_TRUE(lines[10].contains(key)) << key;
  const auto described = nlohmann::json::parse(text_of(folder.path("runs/tiny/run.json")));
  for (const char* key : {"version", "git_commit", "cpu", "kernels", "data", "command_line", "precision"})
    EXPECT_TRUE(described.contains(key)) << key;

  const std::string before = weights(folder);
  Program again(folder, {folder.path("tiny.yaml")});
  EXPECT_EQ(again.wait(), 0);
  EXPECT_NE(again.output().find("is finished"), std::string::npos) << again.output();
  EXPECT_EQ(weights(folder), before);
  Program never(folder, {folder.path("tiny.yaml"), "--resume", "never"});
  EXPECT_EQ(never.wait(), 2);
  EXPECT_NE(never.output().find("is not empty"), std::string::npos);
}

TEST(MobaTrain, WrongUsageIsTwoAndWritesNothing) {
  const TrainFolder folder;
  const std::string recipe = folder.path("tiny.yaml");
  const std::vector<std::vector<std::string>> wrong = {
      {recipe, "train.max_stepz=3"}, {recipe, "--attn", "dense"},      {recipe, "--device", "cuda"},
      {recipe, "--no-such-flag"},    {folder.path("none.yaml")},       {recipe, "--resume", "nowhere"},
      {"--explain", "train.steps"},  {recipe, "data.validation=x.h5"}, {recipe, "model.vocab_size=5"}};
  for (const auto& arguments : wrong) {
    Program run(folder, arguments);
    EXPECT_EQ(run.wait(), 2) << run.output();
    EXPECT_FALSE(run.output().empty());
  }
  EXPECT_FALSE(fs::exists(folder.path("runs")));
}

TEST(MobaTrain, DamagedDataIsThree) {
  const TrainFolder folder;
  folder.write("validation.h5", "this is no HDF5 file");
  Program run(folder, {folder.path("tiny.yaml")});
  EXPECT_EQ(run.wait(), 3) << run.output();
  EXPECT_FALSE(fs::exists(folder.path("runs")));
}

// A data file with one wrong byte among its tokens.
std::string damaged(std::string file) {
  // The name "numbers" stands in 16-bit tokens; one letter of one of them changes.
  const std::string word("n\0u\0m\0b\0e\0r\0s\0", 14);
  const size_t at = file.find(word, file.size() / 2);
  EXPECT_NE(at, std::string::npos);
  file[at] = 'N';
  return file;
}

TEST(MobaTrain, DamagedTokensAreFoundWhenTheyAreRead) {
  const TrainFolder folder;
  folder.write("train.h5", damaged(text_of(folder.path("train.h5"))));
  Program run(folder, {folder.path("tiny.yaml")});
  EXPECT_EQ(run.wait(), 3) << run.output();
  EXPECT_NE(run.output().find("checksum"), std::string::npos) << run.output();
}

void write_tokens(const std::string& path, int count, bool with_loss_mask) {
  TokenDatasetWriter writer(path, 257, 256, -1, make_byte_tokenizer()->json(), with_loss_mask);
  std::vector<int32_t> tokens(static_cast<size_t>(count), 65);
  tokens.back() = 256;
  const std::vector<uint8_t> counts(tokens.size(), 1);
  with_loss_mask ? writer.add_document(tokens, counts) : writer.add_document(tokens);
  writer.finish();
}

TEST(MobaTrain, ValidationIsCheckedBeforeTheFirstStep) {
  const TrainFolder folder;
  folder.write("damaged.h5", damaged(text_of(folder.path("validation.h5"))));
  write_tokens(folder.path("short.h5"), 100, false);
  write_tokens(folder.path("masked.h5"), 100, true);
  const auto at = [&](const char* key, const char* file) { return key + ("=" + folder.path(file)); };
  struct Case {
    int code;
    const char* message;
    std::vector<std::string> overrides;
  };
  const Case cases[] = {
      {2, "short.h5: 100 tokens are too few for one sample of sequence length 128", {at("data.validation", "short.h5")}},
      {3, "damaged.h5: /tokens: tokens 0 to", {at("data.validation", "damaged.h5"), "eval.max_tokens=0"}},
      {2,
       "tokens are too few for one sample of sequence length 8192",
       {"train.stages=[{sequence_length: 64, until: 0.5}, {sequence_length: 8192, until: 1}]", "train.sequence_length=8192",
        "train.global_batch_tokens=8192", "train.micro_batch_size=1", "train.max_steps=2"}},
      {2,
       "short.h5: has no loss mask",
       {"task=sft", "data.train=[{path: " + folder.path("masked.h5") + "}]", at("data.validation", "short.h5")}},
  };
  for (const Case& c : cases)
    for (const bool dry : {false, true}) {
      std::vector<std::string> arguments = {folder.path("tiny.yaml")};
      arguments.insert(arguments.end(), c.overrides.begin(), c.overrides.end());
      if (dry) arguments.push_back("--dry-run");
      Program run(folder, arguments);
      EXPECT_EQ(run.wait(), c.code) << run.output();
      EXPECT_NE(run.output().find(c.message), std::string::npos) << run.output();
      EXPECT_EQ(run.output().find("step 00001/"), std::string::npos) << run.output();
    }
  EXPECT_FALSE(fs::exists(folder.path("runs")));
  Program short_training(folder, {folder.path("tiny.yaml"), "data.train=[{path: " + folder.path("short.h5") + "}]", "--dry-run"});
  EXPECT_EQ(short_training.wait(), 2) << short_training.output();
  Program never_evaluated(folder, {folder.path("tiny.yaml"), at("data.validation", "short.h5"), "eval.interval=0", "train.max_steps=1"});
  EXPECT_EQ(never_evaluated.wait(), 0) << never_evaluated.output();
}

TEST(MobaTrain, AFailedEvaluationLosesNoStepAndRunsAgain) {
  const TrainFolder folder;
  const std::string whole = text_of(folder.path("validation.h5"));
  const std::vector<std::string> arguments = {folder.path("tiny.yaml"), "train.max_steps=100", "eval.interval=100", "eval.max_tokens=0",
                                              "checkpoint.interval=100"};
  Program failing(folder, arguments);
  ASSERT_TRUE(failing.send_after("step 00001/", 0));
  folder.write("validation.h5", damaged(whole));
  EXPECT_EQ(failing.wait(), 3) << failing.output();
  EXPECT_TRUE(fs::exists(folder.path("runs/tiny/checkpoints/step-00000100"))) << failing.output();
  folder.write("validation.h5", whole);
  Program again(folder, arguments);
  EXPECT_EQ(again.wait(), 0) << again.output();
  EXPECT_NE(again.output().find("resuming at step 100"), std::string::npos) << again.output();
  EXPECT_TRUE(metrics(folder).back().contains("eval/loss"));
  EXPECT_EQ(metrics(folder).size(), 101u);
  Program finished(folder, arguments);
  EXPECT_EQ(finished.wait(), 0);
  EXPECT_NE(finished.output().find("is finished"), std::string::npos) << finished.output();
}

TEST(MobaTrain, NonFiniteIsFour) {
  const TrainFolder folder;
  for (const char* policy : {"stop", "skip"}) {
    // A learning rate that destroys the weights within a step or two.
    Program run(folder, {folder.path("tiny.yaml"), "optimizer.lr=100", "optimizer.weight_decay=10", "lr_scheduler.name=constant",
                         "lr_scheduler.warmup_steps=0", "train.max_steps=400", "eval.interval=0", "checkpoint.interval=0",
                         "train.grad_clip=0", std::string("train.nonfinite=") + policy, std::string("run.name=") + policy});
    EXPECT_EQ(run.wait(), 4) << run.output();
    EXPECT_NE(run.output().find("not finite"), std::string::npos);
    // The state before the step that failed.
    const std::string checkpoints = folder.path("runs/") + policy + "/checkpoints/";
    ASSERT_TRUE(fs::exists(checkpoints + "latest")) << run.output();
    EXPECT_NE(run.output().find("are in " + checkpoints + fs::read_symlink(checkpoints + "latest").string()), std::string::npos)
        << run.output();
    std::ifstream lines(folder.path("runs/") + policy + "/metrics.jsonl");
    int64_t steps = 0;
    for (std::string line; std::getline(lines, line);) ++steps;
    EXPECT_EQ(fs::read_symlink(checkpoints + "latest"), fmt::format("step-{:08}", steps));
  }
}

TEST(MobaTrain, UnwritableFolderIsFive) {
  const TrainFolder folder;
  folder.write("blocked", "a file where a folder should be");
  Program run(folder, {folder.path("tiny.yaml"), "run.output_dir=" + folder.path("blocked")});
  EXPECT_EQ(run.wait(), 5) << run.output();
}

TEST(MobaTrain, StoppedAndResumedEqualsUndisturbed) {
  const TrainFolder undisturbed, disturbed;
  // The same data files, so that both runs have one identity.
  for (const char* name : {"train.h5", "validation.h5"})
    fs::copy_file(undisturbed.path(name), disturbed.path(name), fs::copy_options::overwrite_existing);
  // Long enough that signals arrive before the end on any machine.
  const std::vector<std::string> longer = {"train.max_steps=100", "eval.interval=20"};
  const auto arguments = [&](const TrainFolder& folder) {
    return std::vector<std::string>{folder.path("tiny.yaml"), longer[0], longer[1]};
  };
  Program whole(undisturbed, arguments(undisturbed));
  ASSERT_EQ(whole.wait(), 0) << whole.output();

  Program first(disturbed, arguments(disturbed));
  ASSERT_TRUE(first.send_after("step 00005/", SIGTERM));
  const int code = first.wait();
  ASSERT_EQ(code, 75) << first.output();
  Program killed(disturbed, arguments(disturbed));
  ASSERT_TRUE(killed.send_after("step 00030/", SIGKILL));
  EXPECT_EQ(killed.wait(), 1000 + SIGKILL);
  Program last(disturbed, arguments(disturbed));
  ASSERT_EQ(last.wait(), 0) << last.output();
  EXPECT_NE(last.output().find("resuming at step"), std::string::npos);
  EXPECT_TRUE(weights(disturbed) == weights(undisturbed)) << "weights differ";
  EXPECT_EQ(comparable(disturbed), comparable(undisturbed));
}

TEST(MobaTrain, LastEvaluationCutOffIsMadeUpForOnce) {
  const TrainFolder folder;
  write_byte_dataset(folder.path("long.h5"), 80);
  const std::vector<std::string> arguments = {folder.path("tiny.yaml"), "data.validation=" + folder.path("long.h5"), "eval.max_tokens=0",
                                              "eval.interval=1000"};
  Program first(folder, arguments);
  ASSERT_TRUE(first.send_after("step 00020/", SIGTERM));
  ASSERT_EQ(first.wait(), 75) << first.output();
  Program second(folder, arguments);
  ASSERT_EQ(second.wait(), 0) << second.output();
  EXPECT_NE(second.output().find("eval at step 20"), std::string::npos) << second.output();
  Program third(folder, arguments);
  ASSERT_EQ(third.wait(), 0);
  EXPECT_NE(third.output().find("nothing to do"), std::string::npos) << third.output();
}

TEST(MobaTrain, MuonStoppedAndResumedEqualsUndisturbed) {
  const TrainFolder undisturbed, disturbed;
  for (const char* name : {"train.h5", "validation.h5"})
    fs::copy_file(undisturbed.path(name), disturbed.path(name), fs::copy_options::overwrite_existing);
  const auto arguments = [](const TrainFolder& folder) {
    return std::vector<std::string>{folder.path("tiny.yaml"), "optimizer.name=muon", "train.max_steps=60", "eval.interval=0"};
  };
  Program whole(undisturbed, arguments(undisturbed));
  ASSERT_EQ(whole.wait(), 0) << whole.output();
  Program first(disturbed, arguments(disturbed));
  ASSERT_TRUE(first.send_after("step 00005/", SIGTERM));
  ASSERT_EQ(first.wait(), 75) << first.output();
  Program last(disturbed, arguments(disturbed));
  ASSERT_EQ(last.wait(), 0) << last.output();
  EXPECT_NE(last.output().find("resuming at step"), std::string::npos);
  for (const char* file : {"model.safetensors", "optimizer-00000.safetensors"}) {
    const std::string name = std::string("runs/tiny/checkpoints/latest/") + file;
    EXPECT_TRUE(text_of(disturbed.path(name)) == text_of(undisturbed.path(name))) << file;
  }
  EXPECT_EQ(comparable(disturbed), comparable(undisturbed));
}

TEST(MobaTrain, GoingBackToAnOlderStepLeavesNoLaterOnesToAuto) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml"), "checkpoint.keep_last=0", "checkpoint.interval=5"});
  ASSERT_EQ(run.wait(), 0) << run.output();
  const std::string checkpoints = folder.path("runs/tiny/checkpoints/");
  // The kill comes before the next save.
  const std::vector<std::string> longer = {folder.path("tiny.yaml"), "checkpoint.interval=1000000", "train.max_steps=1000000"};
  std::vector<std::string> back = longer;
  back.insert(back.end(), {"--resume", checkpoints + "step-00000010"});
  Program killed(folder, back);
  ASSERT_TRUE(killed.send_after("step 00011/", SIGKILL)) << killed.output();
  EXPECT_EQ(killed.wait(), 1000 + SIGKILL) << killed.output();
  EXPECT_TRUE(fs::exists(checkpoints + "step-00000005"));
  EXPECT_FALSE(fs::exists(checkpoints + "step-00000015"));
  EXPECT_EQ(fs::read_symlink(checkpoints + "latest"), "step-00000010");
  Program again(folder, longer);
  ASSERT_TRUE(again.send_after("resuming at step", SIGTERM)) << again.output();
  EXPECT_EQ(again.wait(), 75);
  EXPECT_NE(again.output().find("resuming at step 10 from"), std::string::npos) << again.output();
}

// Nothing but the resolved recipe is needed to train the same model, whatever stood on the command line.
TEST(MobaTrain, ResolvedRecipeTrainsTheSameModel) {
  const TrainFolder folder;
  const std::vector<std::string> options[] = {{"--attn", "full"}, {"--hybrid-layers", "last1"}, {"optimizer.lr=2e-2"}};
  std::string before;
  for (const auto& option : options) {
    fs::remove_all(folder.path("runs"));
    std::vector<std::string> arguments = {folder.path("tiny.yaml"), "train.max_steps=4"};
    arguments.insert(arguments.end(), option.begin(), option.end());
    Program run(folder, arguments);
    ASSERT_EQ(run.wait(), 0) << run.output();
    Program same(folder, {folder.path("runs/tiny/resolved.yaml"), "run.name=same"});
    ASSERT_EQ(same.wait(), 0) << same.output();
    const std::string trained = weights(folder);
    EXPECT_TRUE(text_of(folder.path("runs/same/checkpoints/latest/model.safetensors")) == trained) << option[0];
    EXPECT_NE(trained, before) << option[0] << " had no effect";
    before = trained;
  }
}

TEST(MobaTrain, ProfileTakesStepsApart) {
  const TrainFolder folder;
  const std::string recipe = folder.path("tiny.yaml"), profile = folder.path("runs/tiny/profile.json");
  for (const char* wrong : {"--profile=0", "--profile=-3", "--profile=few"}) EXPECT_EQ(Program(folder, {recipe, wrong}).wait(), 2) << wrong;
  EXPECT_FALSE(fs::exists(folder.path("runs")));
  Program run(folder, {recipe, "--profile=3"});
  ASSERT_EQ(run.wait(), 0) << run.output();
  for (const char* part :
       {"profile of 3 steps", "matmul, weight gradient", "attention backward", "loss: cross_entropy", "adamw", "everything else"})
    EXPECT_NE(run.output().find(part), std::string::npos) << part << "\n" << run.output();
  const auto trace = nlohmann::json::parse(text_of(profile));
  int steps = 0;
  for (const auto& e : trace.at("traceEvents")) steps += e.at("name").get<std::string>().starts_with("step");
  EXPECT_EQ(steps, 3);
}

TEST(MobaTrain, SaveRequestSavesAndGoesOn) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml"), "checkpoint.interval=1000", "train.max_steps=60", "checkpoint.keep_last=0"});
  ASSERT_TRUE(run.send_after("step 00005/", SIGUSR1));
  ASSERT_EQ(run.wait(), 0) << run.output();
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(folder.path("runs/tiny/checkpoints")))
    checkpoints += entry.path().filename().string().starts_with("step-");
  EXPECT_EQ(checkpoints, 2) << run.output();
}

TEST(MobaTrain, ResumeRefusesAnotherModelOrSeedAndSaysOtherChanges) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml")});
  ASSERT_EQ(run.wait(), 0);
  Program other(folder, {folder.path("tiny.yaml"), "run.seed=7", "model.intermediate_size=96", "train.max_steps=25"});
  EXPECT_EQ(other.wait(), 2);
  EXPECT_NE(other.output().find("run.seed: was 1, is now 7"), std::string::npos) << other.output();
  EXPECT_NE(other.output().find("model.intermediate_size: was 64, is now 96"), std::string::npos) << other.output();
  Program longer(folder, {folder.path("tiny.yaml"), "train.max_steps=22", "optimizer.lr=1e-3"});
  EXPECT_EQ(longer.wait(), 0) << longer.output();
  EXPECT_NE(longer.output().find("changed since the checkpoint: optimizer.lr: 1e-2 -> 1e-3"), std::string::npos) << longer.output();
  EXPECT_EQ(metrics(folder).back()["step"], 22);
}

TEST(MobaTrain, ResumeSaysAnotherAttentionAndRefusesAnotherOptimizer) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml"), "--attn", "full"});
  ASSERT_EQ(run.wait(), 0);
  Program muon(folder, {folder.path("tiny.yaml"), "optimizer.name=muon", "train.max_steps=22"});
  EXPECT_EQ(muon.wait(), 2);
  EXPECT_NE(muon.output().find("optimizer.name: was adamw, is now muon"), std::string::npos) << muon.output();
  Program sparse(folder, {folder.path("tiny.yaml"), "train.max_steps=22"});
  EXPECT_EQ(sparse.wait(), 0);
  EXPECT_NE(sparse.output().find("changed since the checkpoint: --attn: full -> none"), std::string::npos) << sparse.output();
}

TEST(MobaTrain, ResumeRefusesOtherLayersWithPositions) {
  const TrainFolder folder;
  const std::string recipe = folder.path("tiny.yaml"), off = "model.attention.layers=[{layers: [0, 1], rope: false}]";
  ASSERT_EQ(Program(folder, {recipe, "train.max_steps=1"}).wait(), 0);
  Program without(folder, {recipe, "train.max_steps=2", off});
  EXPECT_EQ(without.wait(), 2);
  EXPECT_NE(without.output().find("model.attention.layers: rope was false in no layer, is now in layers 0, 1"), std::string::npos)
      << without.output();
  ASSERT_EQ(Program(folder, {recipe, "train.max_steps=1", "run.name=off", off}).wait(), 0);
  Program same(folder, {recipe, "train.max_steps=2", "run.name=off", off});
  EXPECT_EQ(same.wait(), 0) << same.output();
  Program full(folder, {recipe, "train.max_steps=3", "run.name=off", "model.attention.layers=[{layers: [0, 1], type: full, rope: false}]"});
  EXPECT_EQ(full.wait(), 0) << "attention may change: " << full.output();
}

TEST(MobaTrain, WithoutACompleteCheckpointItStartsAgainAndSaysSo) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml"), "checkpoint.interval=0", "train.max_steps=3"});
  ASSERT_EQ(run.wait(), 0);
  Program again(folder, {folder.path("tiny.yaml"), "train.max_steps=2"});
  EXPECT_EQ(again.wait(), 0);
  EXPECT_NE(again.output().find("no complete checkpoint: starting again at step 0"), std::string::npos) << again.output();
  EXPECT_EQ(metrics(folder).front()["step"], 1);
}

TEST(MobaTrain, LongRunsSaySoOnceAndStart) {
  const TrainFolder folder;
  const std::vector<std::string> arguments = {folder.path("tiny.yaml"), "train.max_steps=1000000000"};
  Program run(folder, arguments);
  ASSERT_TRUE(run.send_after("step 00001/", SIGTERM));
  EXPECT_EQ(run.wait(), 75) << run.output();
  EXPECT_NE(run.output().find("recipes/quickstart.yaml is the same kind of experiment at small scale"), std::string::npos) << run.output();
  Program resumed(folder, arguments);
  ASSERT_TRUE(resumed.send_after("resuming at step", SIGTERM));
  EXPECT_EQ(resumed.wait(), 75);
  EXPECT_EQ(resumed.output().find("at small scale"), std::string::npos) << resumed.output();
}

TEST(MobaTrain, StartsFromWeightsWithAnotherAttention) {
  const TrainFolder folder;
  Program dense(folder, {folder.path("tiny.yaml"), "--attn", "full"});
  ASSERT_EQ(dense.wait(), 0) << dense.output();
  Program activated(folder,
                    {folder.path("tiny.yaml"), "run.name=activated", "model.init_from=" + folder.path("runs/tiny"), "train.max_steps=2"});
  ASSERT_EQ(activated.wait(), 0) << activated.output();
  const auto described = nlohmann::json::parse(text_of(folder.path("runs/activated/run.json")));
  EXPECT_EQ(described["init_from"]["hash"].get<std::string>().size(), 16u);
  Program mismatch(
      folder, {folder.path("tiny.yaml"), "run.name=mismatch", "model.init_from=" + folder.path("runs/tiny"), "model.intermediate_size=96"});
  EXPECT_EQ(mismatch.wait(), 2);
  EXPECT_NE(mismatch.output().find("mlp"), std::string::npos) << mismatch.output();
  EXPECT_FALSE(fs::exists(folder.path("runs/mismatch")));
}

// What the path holds when the run goes on is not what it began with, and need not be there.
TEST(MobaTrain, AResumedRunKeepsTheHashOfItsFirstWeightsAndDoesWithoutThem) {
  const TrainFolder folder;
  const std::string source = folder.path("runs/tiny");
  const auto arguments = [&](const char* steps) {
    return std::vector<std::string>{folder.path("tiny.yaml"), "run.name=started", "model.init_from=" + source, steps};
  };
  const auto hash = [&] {
    return nlohmann::json::parse(text_of(folder.path("runs/started/run.json")))["init_from"]["hash"].get<std::string>();
  };
  ASSERT_EQ(Program(folder, {folder.path("tiny.yaml"), "train.max_steps=1"}).wait(), 0);
  ASSERT_EQ(Program(folder, arguments("train.max_steps=1")).wait(), 0);
  const std::string first = hash();
  ASSERT_EQ(Program(folder, {folder.path("tiny.yaml"), "train.max_steps=2"}).wait(), 0);
  Program resumed(folder, arguments("train.max_steps=2"));
  EXPECT_EQ(resumed.wait(), 0) << resumed.output();
  EXPECT_EQ(hash(), first);
  fs::remove_all(source);
  std::vector<std::string> dry = arguments("train.max_steps=3");
  dry.push_back("--dry-run");
  Program checked(folder, dry);
  EXPECT_EQ(checked.wait(), 0) << checked.output();
  Program alone(folder, arguments("train.max_steps=3"));
  EXPECT_EQ(alone.wait(), 0) << alone.output();
  EXPECT_EQ(hash(), first);
  // With nothing to go on from they are missed.
  for (const auto& entry : fs::directory_iterator(folder.path("runs/started/checkpoints")))
    if (!entry.is_symlink()) fs::remove(entry.path() / "MANIFEST.json");
  Program missed(folder, arguments("train.max_steps=4"));
  EXPECT_EQ(missed.wait(), 2) << missed.output();
  EXPECT_NE(missed.output().find("model.init_from: " + source + " does not exist"), std::string::npos) << missed.output();
}

TEST(MobaTrain, WeightsOfAnotherModelAreRefusedWhereShapesFitToo) {
  const TrainFolder folder;
  Program source(folder, {folder.path("tiny.yaml"), "train.max_steps=1"});
  ASSERT_EQ(source.wait(), 0) << source.output();
  {
    const std::string other = make_byte_tokenizer()->json() + " ";
    TokenDatasetWriter writer(folder.path("other.h5"), 257, 256, -1, other, false);
    writer.add_document(std::vector<int32_t>(2000, 65));
    writer.finish();
  }
  const std::string other = folder.path("other.h5");
  struct Case {
    int code;
    const char* message;
    std::vector<std::string> overrides;
  };
  const Case cases[] = {
      {2, "model.num_attention_heads: 2 there, 4 in the recipe", {"model.num_attention_heads=4"}},
      {2, "model.tie_word_embeddings: false there, true in the recipe", {"model.tie_word_embeddings=true"}},
      {2, "another tokenizer than", {"data.train=[{path: " + other + "}]", "data.validation=" + other}},
      {0, "model.rope_theta: 10000 there, 500000 in the recipe", {"model.rope_theta=500000"}},
      {0, "model.rope_scaling: none there, positions divided by 4 in the recipe", {"model.rope_scaling.position_interpolation=4"}},
      {0, "attention: layers 0-1 moba S 16 K 3 there, layers 0-1 full in the recipe", {"model.attention.type=full"}},
  };
  for (const Case& c : cases)
    for (const bool dry : {true, false}) {
      std::vector<std::string> arguments = {folder.path("tiny.yaml"), "run.name=other", "model.init_from=" + folder.path("runs/tiny"),
                                            "train.max_steps=1"};
      arguments.insert(arguments.end(), c.overrides.begin(), c.overrides.end());
      if (dry) arguments.push_back("--dry-run");
      Program run(folder, arguments);
      EXPECT_EQ(run.wait(), c.code) << run.output();
      EXPECT_NE(run.output().find(c.message), std::string::npos) << c.message << "\n" << run.output();
      EXPECT_EQ(fs::exists(folder.path("runs/other")), c.code == 0 && !dry);
      fs::remove_all(folder.path("runs/other"));
    }
}

TEST(MobaTrain, DryRunPredictsAndNamesMissingData) {
  const TrainFolder folder;
  Program run(folder, {folder.path("tiny.yaml"), "--dry-run"});
  EXPECT_EQ(run.wait(), 0);
  for (const char* part : {"parameters", "tokens", "FLOPs, 6ND", "memory, predicted peak", "disk for checkpoints", "time, predicted"})
    EXPECT_NE(run.output().find(part), std::string::npos) << part;
  Program missing(folder, {folder.path("tiny.yaml"), "--dry-run", "data.train=[{path: data/long/none.h5}]"});
  EXPECT_EQ(missing.wait(), 2);
  EXPECT_NE(missing.output().find("FLOPs"), std::string::npos);
  EXPECT_NE(missing.output().find("tools/dataset long"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path("runs")));
}

}  // namespace
}  // namespace moba::test
