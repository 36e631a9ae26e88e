// config.json: what is written is read back, the model type says what a reader must know, foreign settings are refused by name.
#include "src/interop/hf_config.h"

#include "tests/interop/scratch_folder.h"

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::RopeType;
using nlohmann::json;

LayerOverride layers(std::vector<int64_t> which) {
  LayerOverride override;
  override.layers = std::move(which);
  return override;
}

ScheduleStage stage(double until, AttentionType type) {
  ScheduleStage s;
  s.until = until;
  s.type = type;
  return s;
}

ModelDescription small() {
  ModelDescription d;
  d.model = {.hidden_size = 32,
             .intermediate_size = 64,
             .num_hidden_layers = 4,
             .num_attention_heads = 4,
             .num_key_value_heads = 2,
             .head_dim = 8,
             .vocab_size = 100,
             .max_position_embeddings = 256,
             .rope_scaling = {}};
  d.attention.base.type = AttentionType::moba;
  d.attention.base.moba = {.chunk_size = 16, .topk = 3};
  d.eos_token_id = 99;
  return d;
}

std::vector<std::string> planned(const ModelDescription& d) {
  std::vector<std::string> layers;
  for (int64_t i = 0; i < d.model.num_hidden_layers; ++i) {
    const PlannedAttention layer = attention_at(d.attention, i, d.model.num_hidden_layers, 0, 1);
    layers.push_back(fmt::format("{} S{} K{} W{} {}", attention_type_name(layer.attention.type), layer.attention.moba.chunk_size,
                                 layer.attention.moba.topk, layer.attention.window, layer.rope ? "rope" : "nope"));
  }
  return layers;
}

std::string complaint(json config) {
  try {
    parse_hf_config(config, "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

void expect_round_trip(const ModelDescription& d) {
  const json config = hf_config(d);
  const ModelDescription back = parse_hf_config(json::parse(config.dump()), "config.json");
  EXPECT_EQ(hf_config(back), config);
  EXPECT_EQ(planned(back), planned(d));
}

TEST(HfConfig, MobaAloneIsLlama) {
  const json config = hf_config(small());
  EXPECT_EQ(config["model_type"], "llama");
  EXPECT_EQ(config["architectures"], json({"LlamaForCausalLM"}));
  EXPECT_EQ(config["moba_chunk_size"], 16);
  EXPECT_EQ(config["moba_topk"], 3);
  EXPECT_EQ(config["attention_type"], "moba");
  EXPECT_EQ(config["torch_dtype"], "float32");
  EXPECT_TRUE(config["bos_token_id"].is_null());
  EXPECT_EQ(config["eos_token_id"], 99);
  expect_round_trip(small());
}

TEST(HfConfig, ModelTypeSaysWhatAReaderMustKnow) {
  ModelDescription d = small();
  d.model.qk_norm = true;
  EXPECT_EQ(hf_config(d)["model_type"], "qwen3");
  expect_round_trip(d);
  d.model.key_conv = 3;
  EXPECT_EQ(hf_config(d)["model_type"], "moba");
  expect_round_trip(d);

  d = small();
  d.attention.layers = {layers({0, 2})};
  d.attention.layers[0].type = AttentionType::window;
  d.attention.layers[0].window = 32;
  EXPECT_EQ(hf_config(d)["model_type"], "moba");
  expect_round_trip(d);

  d = small();
  d.attention.layers = {layers({1, 3})};
  d.attention.layers[0].chunk_size = 8;
  d.attention.layers[0].topk = 5;
  d.attention.layers[0].rope = false;
  EXPECT_EQ(hf_config(d)["model_type"], "moba");
  expect_round_trip(d);

  d = small();
  d.attention.full_attention_layers = {3};
  d.attention.layers = {layers({2, 3})};
  d.attention.layers[0].topk = 7;
  EXPECT_EQ(hf_config(d)["model_type"], "llama");
  EXPECT_EQ(hf_config(d)["full_attention_layers"], json({3}));
  expect_round_trip(d);
}

TEST(HfConfig, RopeScaling) {
  ModelDescription d = small();
  d.model.rope_scaling = {.type = RopeType::linear, .factor = 4};
  EXPECT_EQ(hf_config(d)["rope_scaling"], json({{"rope_type", "linear"}, {"factor", 4.0}}));
  expect_round_trip(d);
  d.model.rope_scaling = {.position_interpolation = 2};
  EXPECT_EQ(hf_config(d)["rope_scaling"], json({{"rope_type", "linear"}, {"factor", 2.0}}));
  d.model.rope_scaling = {
      .type = RopeType::llama3, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 64};
  EXPECT_EQ(hf_config(d)["model_type"], "llama");
  expect_round_trip(d);
  d.model.rope_scaling.position_interpolation = 2;
  EXPECT_EQ(hf_config(d)["model_type"], "moba");
  expect_round_trip(d);
}

TEST(HfConfig, ScheduleAndCommandLineFreeze) {
  ModelDescription d = small();
  d.attention.schedule = {stage(0.5, AttentionType::moba), stage(1, AttentionType::full)};
  d.attention.full_attention_layers = {3};
  const auto frozen = [&](int64_t tokens) {
    ModelDescription at = d;
    at.attention = frozen_plan(d.attention, 4, tokens, 1000);
    expect_round_trip(at);
    return planned(at);
  };
  EXPECT_EQ(frozen(0)[0], "moba S16 K3 W0 rope");
  EXPECT_EQ(frozen(0)[3], "full S16 K3 W0 rope");
  EXPECT_EQ(frozen(500)[0], "full S16 K3 W0 rope");
}

// A file as Hugging Face writes it for Llama 3.2.
TEST(HfConfig, ReadsHuggingFaceLlama) {
  const json config = json::parse(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
    "vocab_size": 128256})");
  const ModelDescription d = parse_hf_config(config, "config.json");
  EXPECT_EQ(d.model.hidden_size, 2048);
  EXPECT_EQ(d.model.num_key_value_heads, 8);
  EXPECT_EQ(d.model.rope_scaling.type, RopeType::llama3);
  EXPECT_EQ(d.model.rope_scaling.factor, 32);
  EXPECT_EQ(d.model.rope_theta, 500000);
  EXPECT_TRUE(d.model.tie_word_embeddings);
  EXPECT_EQ(d.eos_token_id, 128001);
  EXPECT_EQ(d.dtype, DType::bf16);
  EXPECT_EQ(d.attention.base.type, AttentionType::full);
}

// Newer versions of Hugging Face keep theta and scaling together.
TEST(HfConfig, ReadsRopeParameters) {
  json config = hf_config(small());
  config.erase("rope_theta");
  config.erase("rope_scaling");
  config["rope_parameters"] = {{"rope_theta", 500000.0}, {"rope_type", "linear"}, {"factor", 2.0}};
  const ModelDescription d = parse_hf_config(config, "config.json");
  EXPECT_EQ(d.model.rope_theta, 500000);
  EXPECT_EQ(d.model.rope_scaling.type, RopeType::linear);
  EXPECT_EQ(d.model.rope_scaling.factor, 2);
  config["rope_parameters"]["rope_type"] = "longrope";
  EXPECT_NE(complaint(config).find("\"longrope\""), std::string::npos);
}

TEST(HfConfig, RefusesByName) {
  const json good = hf_config(small());
  const auto with = [&](const char* key, json value) {
    json config = good;
    config[key] = std::move(value);
    return complaint(config);
  };
  EXPECT_EQ(complaint(good), "");
  EXPECT_EQ(with("attention_bias", true), "config.json: attention_bias: true is not supported");
  EXPECT_EQ(with("mlp_bias", true), "config.json: mlp_bias: true is not supported");
  EXPECT_NE(with("hidden_act", "gelu").find("hidden_act: \"gelu\""), std::string::npos);
  EXPECT_NE(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}).find("rope_type: \"yarn\""), std::string::npos);
  EXPECT_NE(with("rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}}).find("\"dynamic\""), std::string::npos);
  EXPECT_NE(with("model_type", "mistral").find("\"mistral\""), std::string::npos);
  EXPECT_NE(with("quantization_config", {{"bits", 4}}).find("quantization_config"), std::string::npos);
  EXPECT_NE(with("layer_types", {"full_attention", "sliding_attention"}).find("layer_types"), std::string::npos);
  EXPECT_NE(with("partial_rotary_factor", 0.5).find("partial_rotary_factor"), std::string::npos);
  EXPECT_NE(with("hidden_size", "32").find("hidden_size: expected an integer"), std::string::npos);
  EXPECT_NE(with("hidden_size", nullptr).find("hidden_size: missing"), std::string::npos);
  EXPECT_NE(with("moba_topk", 0).find("moba_topk"), std::string::npos);
  EXPECT_NE(with("gate", "median").find("gate"), std::string::npos);
  EXPECT_NE(with("full_attention_layers", {4}).find("layer 4"), std::string::npos);
  EXPECT_NE(with("num_attention_heads", 3).find("config.json"), std::string::npos);
}

TEST(HfConfig, DamagedFilesSayWhich) {
  ScratchFolder folder;
  EXPECT_THROW(read_model_config(folder.root()), Error);
  folder.write("config.json", "{\"hidden_size\": ");
  try {
    read_model_config(folder.root());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::corrupt_input);
    EXPECT_NE(std::string(error.what()).find(folder.path("config.json")), std::string::npos);
  }
}

}  // namespace
}  // namespace moba::test
