// Checkpoints: exact, pruned, and never believed when damaged.
#include "src/train/checkpoint.h"

#include <filesystem>

#include "tests/faults/victim_model.h"
#include "tests/interop/scratch_folder.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> newest(const ScratchFolder& run, std::vector<std::string>* messages = nullptr) {
  return newest_checkpoint(run.root(), [&](const std::string& m) {
    if (messages) messages->push_back(m);
  });
}

std::string name_of(const std::optional<std::string>& path) { return path ? fs::path(*path).filename().string() : "none"; }

void damage_byte(const std::string& path, std::streamoff from_end) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-from_end, std::ios::end);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(-from_end, std::ios::end);
  file.put(byte);
}

TEST(Checkpoint, RestoresEveryByte) {
  ScratchFolder run;
  VictimModel saved(3);
  const std::string dir = saved.save(run.root(), 40, 2);
  EXPECT_EQ(fs::path(dir).filename(), "step-00000040");
  EXPECT_EQ(fs::read_symlink(run.path("checkpoints/latest")), "step-00000040");

  VictimModel loaded(4);
  const auto state = load_checkpoint(dir, loaded.transformer, loaded.optimizer.get());
  EXPECT_TRUE(loaded.bytes() == saved.bytes());
  EXPECT_EQ(state["step"], 40);
  EXPECT_EQ(state["samples"], 400);
  for (const char* file :
       {"config.json", "model.safetensors", "tokenizer.json", "optimizer-00000.safetensors", "trainer_state.json", "MANIFEST.json"})
    EXPECT_TRUE(fs::exists(dir + "/" + file)) << file;
  EXPECT_EQ(read_model_config(dir).model.hidden_size, 32);
}

TEST(Checkpoint, RefreshesComputeCopies) {
  ScratchFolder run;
  VictimModel saved(3);
  const std::string dir = saved.save(run.root(), 1, 0);
  Transformer loaded(VictimModel::description().model, DType::bf16, 9);
  load_weights(dir, loaded);
  for (const Parameter& p : loaded.parameters()) {
    const Tensor want = saved.transformer.parameter(p.name).master.to(p.value.dtype());
    EXPECT_TRUE(same_bits(p.name, p.value.value().raw(), want.raw(), static_cast<size_t>(want.nbytes())));
  }
}

TEST(Checkpoint, KeepsTheLastAndDropsAnAbandonedFuture) {
  ScratchFolder run;
  VictimModel model(1);
  const auto steps = [&] {
    std::vector<std::string> names;
    for (const auto& e : fs::directory_iterator(run.path("checkpoints"))) names.push_back(e.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  };
  for (int64_t step : {10, 20, 30}) model.save(run.root(), step, 2);
  EXPECT_EQ(steps(), (std::vector<std::string>{"latest", "step-00000020", "step-00000030"}));
  model.save(run.root(), 25, 0);
  EXPECT_EQ(steps(), (std::vector<std::string>{"latest", "step-00000020", "step-00000025"}));
}

TEST(Checkpoint, FallsBackFromDamageWithItsReason) {
  struct Case {
    const char* says;
    std::function<void(const std::string& dir)> damage;
  };
  const std::vector<Case> cases = {
      {"its hash is not the one", [](const std::string& dir) { damage_byte(dir + "/model.safetensors", 5); }},
      {"its hash is not the one", [](const std::string& dir) { damage_byte(dir + "/optimizer-00000.safetensors", 100); }},
      {"bytes, MANIFEST.json says", [](const std::string& dir) { fs::resize_file(dir + "/trainer_state.json", 3); }},
      {"is missing", [](const std::string& dir) { fs::remove(dir + "/config.json"); }},
      {"is incomplete", [](const std::string& dir) { fs::remove(dir + "/MANIFEST.json"); }},
      {"is damaged", [](const std::string& dir) { fs::resize_file(dir + "/MANIFEST.json", 40); }},
  };
  for (const Case& c : cases) {
    ScratchFolder run;
    VictimModel model(1);
    model.save(run.root(), 10, 0);
    c.damage(model.save(run.root(), 20, 0));
    std::vector<std::string> messages;
    EXPECT_EQ(name_of(newest(run, &messages)), "step-00000010") << c.says;
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_NE(messages[0].find(c.says), std::string::npos) << messages[0];
    EXPECT_NE(messages[0].find("step-00000020"), std::string::npos) << messages[0];
  }
}

TEST(Checkpoint, NoneWithoutFolder) {
  ScratchFolder run;
  EXPECT_EQ(newest(run), std::nullopt);
  fs::create_directories(run.path("checkpoints/.tmp-step-00000010"));
  EXPECT_EQ(newest(run), std::nullopt);
}

TEST(Checkpoint, ListsEveryTensorThatDoesNotFit) {
  ScratchFolder run;
  const std::string dir = VictimModel(1).save(run.root(), 1, 0);
  TransformerConfig wider = VictimModel::description().model;
  wider.intermediate_size = 96;
  wider.num_hidden_layers = 3;
  Transformer model(wider, DType::f32, 1);
  try {
    load_weights(dir, model);
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.code(), ExitCode::usage);
    for (const char* part : {"layers.0.mlp.up_proj.weight: [64, 32] in the file, [96, 32] in the model", "layers.1.mlp.down_proj.weight",
                             "layers.2.self_attn.q_proj.weight: missing"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(Checkpoint, HashOfWeightsFollowsThem) {
  ScratchFolder run;
  const std::string a = weights_hash(VictimModel(1).save(run.root(), 1, 0));
  EXPECT_EQ(a, weights_hash(VictimModel(1).save(run.root(), 2, 0)));
  EXPECT_NE(a, weights_hash(VictimModel(2).save(run.root(), 3, 0)));
}

TEST(Checkpoint, PathsOfUsers) {
  ScratchFolder run;
  const std::string dir = VictimModel(1).save(run.root(), 7, 0);
  for (const std::string& path : {run.root(), run.path("checkpoints"), run.path("checkpoints/latest"), dir})
    EXPECT_EQ(fs::canonical(resolve_checkpoint(path)), fs::canonical(dir)) << path;
  EXPECT_THROW(resolve_checkpoint(run.path("nothing")), Error);
  fs::create_directories(run.path("empty"));
  EXPECT_THROW(resolve_checkpoint(run.path("empty")), Error);
}

// A run whose checkpoints cannot be reached for a moment must not start again over them.
TEST(Checkpoint, WhatCannotBeReadIsNotTakenForMissing) {
  const ScratchFolder run;
  std::filesystem::create_symlink("checkpoints", run.path("checkpoints"));  // a loop
  try {
    newest_checkpoint(run.root(), [](const std::string&) {});
    FAIL() << "an unreadable folder was taken for an empty one";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::io) << e.what();
  }
}

}  // namespace
}  // namespace moba::test
