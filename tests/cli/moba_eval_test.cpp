// moba-eval as users meet it: what each command prints and writes about a trained run, and the exit codes of wrong inputs.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/data/file_io.h"
#include "src/data/hdf5_file.h"
#include "src/interop/safetensors.h"
#include "tests/support/shell.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

Outcome program(const std::string& name, const std::string& arguments) {
  return shell(std::string(MOBA_BIN_DIR) + "/" + name + " " + arguments);
}

Outcome moba_eval(const std::string& arguments) { return program("moba-eval", arguments); }

nlohmann::json json_of(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return nlohmann::json::parse(outcome.output, nullptr, false);
}

// The last line of a run's metrics that has an evaluation.
nlohmann::json last_evaluation(const std::string& run) {
  nlohmann::json out;
  std::ifstream file(run + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);)
    if (auto parsed = nlohmann::json::parse(line); parsed.contains("eval/loss")) out = parsed;
  return out;
}

std::vector<float> floats(const std::string& path, const char* dataset) {
  const hdf5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  const hdf5::Handle data(H5Dopen2(file.get(), dataset, H5P_DEFAULT), H5Dclose), space(H5Dget_space(data.get()), H5Sclose);
  if (!space.valid()) return {};
  std::vector<float> out(static_cast<size_t>(H5Sget_simple_extent_npoints(space.get())));
  H5Dread(data.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data());
  return out;
}

// A trained run, made once for all tests.
class MobaEval : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TrainFolder;
    const Outcome trained = program("moba-train", folder_->path("tiny.yaml"));
    ASSERT_EQ(trained.code, 0) << trained.output;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static std::string path(const std::string& name) { return folder_->path(name); }
  static std::string run() { return path("runs/tiny"); }
  static std::string loss(const std::string& checkpoint, const std::string& more = "") {
    return "loss " + checkpoint + " --data " + path("validation.h5") + " --sequence-length 128 --json " + more;
  }
  static TrainFolder* folder_;
};
TrainFolder* MobaEval::folder_ = nullptr;

TEST_F(MobaEval, LossAgreesWithTheRunsOwnEvaluation) {
  const auto got = json_of(moba_eval(loss(run(), "--bins 4 --trailing 16 --max-tokens 1024"))), want = last_evaluation(run());
  EXPECT_NEAR(got["loss"].get<double>(), want["eval/loss"].get<double>(), 1e-6);
  EXPECT_NEAR(got["trailing_loss"].get<double>(), want["eval/trailing_loss"].get<double>(), 1e-6);
  ASSERT_EQ(got["position_loss"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(got["position_loss"][i].get<double>(), want["eval/position_loss"][i].get<double>(), 1e-6);
  EXPECT_EQ(got["targets"], 1024);
  // A step folder is the same model; another attention is not.
  EXPECT_EQ(json_of(moba_eval(loss(run() + "/checkpoints/step-00000020", "--bins 4 --trailing 16 --max-tokens 1024"))), got);
  EXPECT_NE(json_of(moba_eval(loss(run(), "--attn full")))["loss"], json_of(moba_eval(loss(run())))["loss"]);
  EXPECT_EQ(json_of(moba_eval(loss(run(), "--hybrid-layers all")))["loss"], json_of(moba_eval(loss(run(), "--attn full")))["loss"]);
}

TEST_F(MobaEval, LossOfInstructionDataCountsWithinExamples) {
  {
    TokenDatasetWriter writer(path("sft.h5"), 257, 256, -1, make_byte_tokenizer()->json(), true);
    for (const int length : {40, 70, 25}) {
      std::vector<int32_t> tokens(static_cast<size_t>(length), 'x');
      std::vector<uint8_t> counts(static_cast<size_t>(length), 0);
      tokens.back() = 256;
      std::fill(counts.end() - 11, counts.end() - 1, uint8_t{1});
      writer.add_document(tokens, counts);
    }
    writer.finish();
  }
  const std::string command = "loss " + run() + " --data " + path("sft.h5") + " --sequence-length 128 --bins 4 --trailing 4 ";
  const auto sft = json_of(moba_eval(command + "--json"));
  EXPECT_EQ(sft["examples"], 3);
  EXPECT_EQ(sft["targets"], 30);
  EXPECT_TRUE(sft.contains("trailing_loss"));
  EXPECT_TRUE(sft["position_loss"][3].is_null()) << sft;
  EXPECT_NE(moba_eval(command).output.find("over the last 4 counted targets of each example"), std::string::npos);
  const auto text = json_of(moba_eval(command + "--task pretrain --json"));
  EXPECT_EQ(text["windows"], 0) << text;
}

TEST_F(MobaEval, GenerateContinuesThePromptTheSameWayEachTime) {
  const std::string prompt = "The number 2";
  const Outcome greedy = moba_eval("generate " + run() + " --prompt '" + prompt + "' --max-new-tokens 12");
  ASSERT_EQ(greedy.code, 0) << greedy.output;
  EXPECT_TRUE(greedy.output.starts_with(prompt)) << greedy.output;
  EXPECT_GT(greedy.output.size(), prompt.size() + 1);
  folder_->write("prompt.txt", prompt);
  EXPECT_EQ(moba_eval("generate " + run() + " --prompt-file " + path("prompt.txt") + " --max-new-tokens 12").output, greedy.output);
  const auto drawn = [&](int seed) {
    return moba_eval("generate " + run() + " --prompt '" + prompt + "' --max-new-tokens 40 --temperature 1 --top-p 0.9 --seed " +
                     std::to_string(seed));
  };
  EXPECT_EQ(drawn(1).output, drawn(1).output);
  EXPECT_NE(drawn(1).output, drawn(2).output);
  EXPECT_EQ(moba_eval("generate " + run() + " --prompt '" + prompt + "' --max-new-tokens 5 --decode moba").code, 0);
  EXPECT_EQ(moba_eval("generate " + run() + " --prompt '" + prompt + "' --max-new-tokens 0").output, prompt + "\n");
}

TEST_F(MobaEval, DumpIsOnePassThatAgreesWithItself) {
  const std::string out = path("dump.h5");
  const Outcome dumped = moba_eval("dump " + run() + " --tokens " + path("validation.h5") + " --output " + out +
                                   " --sequence-length 64 --sequences 2 --selected --gradients");
  ASSERT_EQ(dumped.code, 0) << dumped.output;
  EXPECT_FALSE(fs::exists(out + ".tmp"));
  const auto logits = floats(out, "logits"), targets = floats(out, "targets"), token_loss = floats(out, "token_loss");
  ASSERT_EQ(targets.size(), 128u);
  ASSERT_EQ(logits.size(), 128u * 257u);
  double sum = 0;
  for (size_t t = 0; t < 128; ++t) {
    const float* row = &logits[t * 257];
    double exps = 0;
    for (size_t v = 0; v < 257; ++v) exps += std::exp(static_cast<double>(row[v]));
    const double nats = std::log(exps) - static_cast<double>(row[static_cast<size_t>(targets[t])]);
    EXPECT_NEAR(token_loss[t], nats, 1e-4) << t;
    sum += nats;
  }
  EXPECT_NEAR(floats(out, "loss").at(0), sum / 128, 1e-5);
  for (const char* name : {"selected/0", "selected/1", "gradients/model.embed_tokens.weight", "gradients/model.norm.weight"})
    EXPECT_FALSE(floats(out, name).empty()) << name;
  // As many blocks as the recipe says, the own one first.
  const auto selected = floats(out, "selected/0");
  ASSERT_EQ(selected.size(), 128u * 2 * 3);
  for (size_t t = 0; t < 128; ++t) EXPECT_EQ(selected[t * 6], static_cast<float>(t % 64 / 16)) << t;
}

TEST_F(MobaEval, ExportIsTheSameModelRoundedOnce) {
  const double before = json_of(moba_eval(loss(run())))["loss"];
  for (const std::string dtype : {"f32", "bf16"}) {
    const std::string out = path("export-" + dtype);
    const Outcome exported = moba_eval("export --dtype " + dtype + " " + run() + " " + out);
    ASSERT_EQ(exported.code, 0) << exported.output;
    EXPECT_FALSE(fs::exists(out + ".tmp"));
    for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
      EXPECT_TRUE(fs::exists(out + "/" + name)) << name;
    const double after = json_of(moba_eval(loss(out)))["loss"];
    if (dtype == "f32")
      EXPECT_EQ(after, before);
    else
      EXPECT_NEAR(after, before, 2e-2);
    const WeightFiles weights(out), masters(run() + "/checkpoints/latest");
    ASSERT_EQ(weights.entries().size(), masters.entries().size());
    for (const auto& [name, entry] : masters.entries()) {
      EXPECT_EQ(weights.entries().at(name).dtype, dtype == "f32" ? DType::f32 : DType::bf16);
      const Tensor want = Tensor::empty(entry.shape, DType::f32), got = Tensor::empty(entry.shape, DType::f32);
      masters.read(name, want);
      weights.read(name, got);
      for (int64_t i = 0; i < want.numel(); ++i) {
        const float master = want.data<float>()[i];
        ASSERT_EQ(got.data<float>()[i], dtype == "f32" ? master : to_float(to_bf16(master))) << name << " at " << i;
      }
    }
    const Outcome again = moba_eval("export " + run() + " " + out);
    EXPECT_EQ(again.code, 2);
    EXPECT_NE(again.output.find("not an empty folder"), std::string::npos) << again.output;
  }
}

TEST_F(MobaEval, AFullDiskBehindTheOutputIsFive) {
  for (const std::string& command : {"moba-eval " + loss(run()), "moba-eval generate " + run() + " --prompt a --max-new-tokens 3",
                                     "moba-train " + path("tiny.yaml") + " --print-config", std::string("moba-train --help-recipe")}) {
    const Outcome outcome = shell("(" + std::string(MOBA_BIN_DIR) + "/" + command + " > /dev/full)");
    EXPECT_EQ(outcome.code, 5) << command << outcome.output;
    EXPECT_NE(outcome.output.find("cannot be written"), std::string::npos) << command << outcome.output;
  }
}

// The same ids mean other text to another tokenizer. Without tokenizer.json nobody can tell.
TEST_F(MobaEval, DataOfAnotherTokenizerIsRefused) {
  {
    auto json = nlohmann::json::parse(make_byte_tokenizer()->json());
    json["added_tokens"][0]["content"] = "<|end_of_text|>";
    TokenDatasetWriter writer(path("other.h5"), 257, 256, -1, json.dump(), false);
    writer.add_document(std::vector<int32_t>(400, 'x'));
    writer.finish();
  }
  const std::string data = path("other.h5"), length = " --sequence-length 64";
  const auto commands = [&](const std::string& checkpoint) {
    return std::vector<std::string>{"loss " + checkpoint + " --data " + data + length,
                                    "dump " + checkpoint + " --tokens " + data + length + " --output " + path("other-dump.h5"),
                                    "recall " + checkpoint + " --data " + data + length + " --grid 16,2"};
  };
  for (const std::string& command : commands(run())) {
    const Outcome outcome = moba_eval(command);
    EXPECT_EQ(outcome.code, 2) << command << outcome.output;
    EXPECT_NE(outcome.output.find("moba-data prepare --tokenizer"), std::string::npos) << outcome.output;
  }
  fs::copy(fs::canonical(run() + "/checkpoints/latest"), path("untokenized"));
  fs::remove(path("untokenized/tokenizer.json"));
  fs::remove(path("untokenized/MANIFEST.json"));
  for (const std::string& command : commands(path("untokenized"))) EXPECT_EQ(moba_eval(command).code, 0) << command;
}

// What is beside an export, or stands under an output's name and is no older output, stays as it is.
TEST_F(MobaEval, OutputsReplaceNothingElse) {
  fs::create_directories(path("e/out.tmp"));
  folder_->write("e/out.tmp/mine.txt", "mine");
  const Outcome exported = moba_eval("export " + run() + " " + path("e/out"));
  ASSERT_EQ(exported.code, 0) << exported.output;
  EXPECT_EQ(read_file(path("e/out.tmp/mine.txt")), "mine");
  // A last slash is no other name, and an empty folder's place is free.
  for (const char* name : {"e/new/", "e/empty/", "e/empty2/../empty3"}) {
    if (std::string(name) == "e/empty/") fs::create_directories(path(name));
    const Outcome again = moba_eval("export " + run() + " " + path(name));
    EXPECT_EQ(again.code, 0) << again.output;
    EXPECT_TRUE(fs::exists(fs::path(path(name)).lexically_normal() / "model.safetensors")) << name;
  }
  int64_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path("e"))) ++entries;
  EXPECT_EQ(entries, 5) << "something was left behind";

  folder_->write("e/file", "");
  ASSERT_EQ(mkfifo(path("e/pipe").c_str(), 0600), 0);
  const std::string tokens = path("validation.h5"), before = read_file(tokens);
  const std::string weights = path("e/out/model.safetensors"), dump = " --tokens " + tokens + " --sequence-length 64 --output ";
  const std::pair<std::string, const char*> refused[] = {
      {"export " + run() + " " + path("e/file"), "not an empty folder"},
      {"export " + run() + " " + path("e/pipe"), "not an empty folder"},
      {"dump " + run() + dump + tokens, "is the input"},
      {"dump " + path("e/out") + dump + weights, "is the input"},
      {"dump " + run() + dump + path("e/pipe"), "not a regular file"},
      {"dump " + run() + dump + path("e"), "not a regular file"},
  };
  for (const auto& [arguments, says] : refused) {
    const Outcome outcome = moba_eval(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments << outcome.output;
    EXPECT_NE(outcome.output.find(says), std::string::npos) << arguments << "\n" << outcome.output;
  }
  EXPECT_EQ(read_file(tokens), before);
  EXPECT_TRUE(fs::is_fifo(path("e/pipe")) && fs::is_regular_file(path("e/file")));
}

TEST_F(MobaEval, RecallTellsMassAndLossOnTheSameSequences) {
  const std::string data = " --data " + path("validation.h5"), few = data + " --sequence-length 128 --sequences 2";
  const auto got = json_of(moba_eval("recall --json" + few + " --svg " + path("recall.svg") + " --grid 16,2 16,8 " + run()));
  EXPECT_EQ(got["checkpoint"], run() + "/checkpoints/step-00000020");
  EXPECT_EQ(got["attention"], "full attention");
  EXPECT_EQ(got["sequences"], 2);
  const auto loss_of = [&](const std::string& attention) {
    return json_of(moba_eval(loss(run(), "--max-tokens 256 " + attention)))["loss"].get<double>();
  };
  EXPECT_NEAR(got["loss"].get<double>(), loss_of("--attn full"), 1e-6);
  const auto &two = got["settings"][0], &all = got["settings"][1];
  EXPECT_NEAR(two["queries_left_out"].get<double>(), 0.25, 1e-12);  // the first two of eight blocks
  EXPECT_LT(two["kept"].get<double>(), two["best_possible"].get<double>());
  EXPECT_NE(two["loss_moba"], got["loss"]);
  EXPECT_EQ(all["kept"], 1);
  EXPECT_NEAR(all["loss_moba"].get<double>(), got["loss"].get<double>(), 1e-6);
  EXPECT_EQ(all["hybrid_layers_on_average"], "none");
  const std::string svg = (std::stringstream() << std::ifstream(path("recall.svg")).rdbuf()).str();
  for (const std::string& part :
       {run() + "/checkpoints/step-00000020", std::string("the first 2 of"), std::string("full attention"), std::string("100 %")})
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  EXPECT_NE(moba_eval("recall " + run() + data + " --sequence-length 256 --grid 16,2").output.find("longer than the 128"),
            std::string::npos);
}

TEST_F(MobaEval, RecallLeavesWindowLayersAlone) {
  const Outcome trained = program(
      "moba-train",
      path("tiny.yaml") +
          " run.name=windowed train.max_steps=1 eval.interval=0 'model.attention.layers=[{layers: [0], type: window, window: 32}]'");
  ASSERT_EQ(trained.code, 0) << trained.output;
  const auto got = json_of(
      moba_eval("recall " + path("runs/windowed") + " --data " + path("validation.h5") + " --sequence-length 128 --json --grid 16,2"));
  EXPECT_EQ(got["layers"], nlohmann::json({1}));
  EXPECT_EQ(got["settings"][0]["layers"].size(), 1u);
}

TEST_F(MobaEval, WrongInputsHaveTheirExitCodes) {
  folder_->write("text.h5", "no HDF5");
  fs::copy(fs::canonical(run() + "/checkpoints/latest"), path("damaged"), fs::copy_options::recursive);
  std::fstream(path("damaged/model.safetensors"), std::ios::in | std::ios::out | std::ios::binary).seekp(-3, std::ios::end).put(1);
  const std::string data = " --data " + path("validation.h5");
  const struct {
    std::string arguments;
    int code;
    const char* says;
  } cases[] = {
      {"", 2, "subcommand"},
      {"--help", 0, "generate"},
      {"loss " + run(), 2, "--data"},
      {"loss " + run() + data + " --bin 4", 2, "--bin"},
      {"loss " + path("none") + data, 2, "does not exist"},
      {"loss " + path("runs") + data, 2, "no checkpoint and no run"},
      {"loss " + run() + " --data " + path("none.h5"), 2, "no such token dataset"},
      {"loss " + run() + " --data " + path("text.h5"), 3, "not an HDF5 file"},
      {"loss " + path("damaged") + data, 3, "is damaged"},
      {"loss " + run() + data + " --sequence-length 128 --trailing 129", 2, "--trailing 129 is longer than the sequences of 128"},
      {"loss " + run() + data + " --sequence-length 128 --bins 129", 2, "--bins 129"},
      {"loss " + run() + data + " --attn dense", 2, "--attn dense: must be"},
      {"loss " + run() + data + " --attn full --hybrid-layers last1", 2, "--hybrid-layers"},
      {"loss " + run() + data + " --hybrid-layers last3", 2, "the model has 2 layers"},
      {"loss " + run() + data + " --task chat", 2, "--task"},
      {"loss " + run() + data + " --sequence-length 0", 2, "--sequence-length: must be above 0, got 0\n"},
      {"loss " + run() + data + " --bins -1", 2, "--bins: must be 0 or more, got -1\n"},
      {"generate " + run() + " --prompt a --max-new-tokens 1000000000000", 2, "--max-new-tokens"},
      {"loss " + run() + data + " --task sft --sequence-length 16", 2, "longer than the sequence length"},
      {"generate " + run(), 2, "the prompt is empty"},
      {"generate " + run() + " --prompt-file " + path("none.txt"), 2, "none.txt"},
      {"generate " + run() + " --prompt a --top-p 2", 2, "--top-p"},
      {"dump " + run() + " --tokens " + path("validation.h5") + " --output " + path("none/x.h5"), 5, "cannot create"},
      {"dump " + run() + " --tokens " + path("validation.h5") + " --output " + path("x.h5") + " --sequences 100000", 2, "--sequences"},
      {"export " + run() + " " + path("x") + " --dtype f16", 2, "--dtype"},
  };
  for (const auto& c : cases) {
    const Outcome outcome = moba_eval(c.arguments);
    EXPECT_EQ(outcome.code, c.code) << c.arguments << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find(c.says), std::string::npos) << c.arguments << "\n" << outcome.output;
  }
  for (const char* name : {"x", "x.h5", "x.h5.tmp", "none"}) EXPECT_FALSE(fs::exists(path(name))) << name;
}

}  // namespace
}  // namespace moba::test
