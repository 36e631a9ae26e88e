#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "src/interop/hashed_file.h"
#include "src/interop/hf_config.h"

namespace moba {
namespace {

using kernels::AttentionType;
using kernels::RopeType;
using nlohmann::json;

// One JSON object of a config; complaints name file and key.
class Keys {
 public:
  Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw Error(where_ + ": not a JSON object", ExitCode::corrupt_input);
  }
  template <class... Args>
  [[noreturn]] void refuse(const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(fmt::format("{}: {}: {}", where_, key, fmt::format(format, std::forward<Args>(args)...)), ExitCode::usage);
  }
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  const json& at(const char* key) const { return object_[key]; }
  const std::string& where() const { return where_; }

  int64_t integer(const char* key, int64_t otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_number_integer()) refuse(key, "expected an integer, found {}", at(key).dump());
    return at(key).get<int64_t>();
  }
  int64_t required_integer(const char* key) const {
    if (!has(key)) refuse(key, "missing");
    return integer(key, 0);
  }
  double number(const char* key, double otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_number()) refuse(key, "expected a number, found {}", at(key).dump());
    return at(key).get<double>();
  }
  bool boolean(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_boolean()) refuse(key, "expected true or false, found {}", at(key).dump());
    return at(key).get<bool>();
  }
  std::string text(const char* key, const char* otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_string()) refuse(key, "expected a string, found {}", at(key).dump());
    return at(key).get<std::string>();
  }
  std::vector<int64_t> integers(const char* key) const {
    if (!has(key)) return {};
    const bool good =
        at(key).is_array() && std::all_of(at(key).begin(), at(key).end(), [](const json& v) { return v.is_number_integer(); });
    if (!good) refuse(key, "expected a list of integers, found {}", at(key).dump());
    return at(key).get<std::vector<int64_t>>();
  }

 private:
  const json& object_;
  std::string where_;
};

// The enum value of a name; the list of names in the error is from_name's.
template <class Enum>
Enum named(const Keys& keys, const char* key, Enum otherwise, Enum (*from_name)(const std::string&)) {
  if (!keys.has(key)) return otherwise;
  try {
    return from_name(keys.text(key, ""));
  } catch (const Error& error) {
    keys.refuse(key, "{}", error.what());
  }
}

kernels::RopeScaling rope_scaling(const Keys& keys) {
  kernels::RopeScaling scaling;
  if (!keys.has("rope_scaling")) return scaling;
  const Keys rope(keys.at("rope_scaling"), keys.where() + ": rope_scaling");
  // Older files say "type".
  const std::string type = rope.has("rope_type") ? rope.text("rope_type", "") : rope.text("type", "default");
  scaling.position_interpolation = rope.number("position_interpolation", 1);
  if (type == "default") return scaling;
  scaling.factor = rope.number("factor", 1);
  if (!(scaling.factor > 0) || !std::isfinite(scaling.factor)) rope.refuse("factor", "must be > 0, got {}", scaling.factor);
  if (type == "linear") {
    scaling.type = RopeType::linear;
    return scaling;
  }
  if (type != "llama3") rope.refuse("rope_type", "\"{}\" is not supported; this program has linear and llama3", type);
  scaling.type = RopeType::llama3;
  scaling.low_freq_factor = rope.number("low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = rope.number("high_freq_factor", scaling.high_freq_factor);
  scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings", scaling.original_max_position_embeddings);
  return scaling;
}

// Newer files of Hugging Face keep theta and scaling together in rope_parameters.
void read_rope(const Keys& keys, TransformerConfig& model) {
  if (!keys.has("rope_parameters")) {
    model.rope_theta = keys.number("rope_theta", 10000);
    model.rope_scaling = rope_scaling(keys);
    return;
  }
  const json wrapped = {{"rope_scaling", keys.at("rope_parameters")}};
  const Keys rope(keys.at("rope_parameters"), keys.where() + ": rope_parameters");
  model.rope_theta = rope.number("rope_theta", keys.number("rope_theta", 10000));
  model.rope_scaling = rope_scaling(Keys(wrapped, keys.where()));
}

// Settings that change the result and that this project does not have.
void refuse_unsupported(const Keys& keys) {
  for (const char* key : {"attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_sliding_window"})
    if (keys.boolean(key, false)) keys.refuse(key, "true is not supported");
  if (const std::string act = keys.text("hidden_act", "silu"); act != "silu" && act != "swish")
    keys.refuse("hidden_act", "\"{}\" is not supported; this program has silu", act);
  for (const char* key : {"num_local_experts", "num_experts", "quantization_config", "partial_rotary_factor", "layer_types", "logit_scale",
                          "final_logit_softcapping", "attn_logit_softcapping", "residual_multiplier", "embedding_multiplier"}) {
    if (!keys.has(key)) continue;
    if (std::string_view(key) == "partial_rotary_factor" && keys.number(key, 1) == 1) continue;
    if (std::string_view(key) == "layer_types" && keys.at(key).is_array() &&
        std::all_of(keys.at(key).begin(), keys.at(key).end(), [](const json& v) { return v == "full_attention"; }))
      continue;
    keys.refuse(key, "{} is not supported", keys.at(key).dump().substr(0, 80));
  }
  if (const double pretraining_tp = keys.number("pretraining_tp", 1); pretraining_tp != 1) keys.refuse("pretraining_tp", "must be 1");
}

bool qk_norm_of(const Keys& keys) {
  const std::string type = keys.text("model_type", "");
  if (type == "qwen3") return true;
  if (type == "llama" && !keys.boolean("qk_norm", false)) return false;
  if (type == "moba") return keys.boolean("qk_norm", false);
  if (type == "llama") keys.refuse("qk_norm", "a llama model has none");
  keys.refuse("model_type", "\"{}\" is not supported; this program reads llama, qwen3 and moba", type);
}

AttentionPlan attention_plan(const Keys& keys, int64_t num_layers) {
  AttentionPlan plan;
  const MobaConfig defaults;
  plan.base.type = named(keys, "attention_type", AttentionType::full, attention_type_from_name);
  plan.base.moba = {.chunk_size = keys.integer("moba_chunk_size", defaults.chunk_size),
                    .topk = keys.integer("moba_topk", defaults.topk),
                    .gate = named(keys, "gate", defaults.gate, gate_from_name),
                    .select = named(keys, "select", defaults.select, select_from_name),
                    .seed = static_cast<uint64_t>(keys.integer("gate_seed", 0))};
  plan.base.window = keys.integer("window", 0);
  plan.base.softmax_scale = keys.number("softmax_scale", 0);
  plan.full_attention_layers = keys.integers("full_attention_layers");
  const auto check_layers = [&](const Keys& of, const char* key, const std::vector<int64_t>& layers) {
    for (int64_t layer : layers)
      if (layer < 0 || layer >= num_layers) of.refuse(key, "layer {} is outside 0..{}", layer, num_layers - 1);
  };
  check_layers(keys, "full_attention_layers", plan.full_attention_layers);
  if (!keys.has("attention_layers")) return plan;
  if (!keys.at("attention_layers").is_array()) keys.refuse("attention_layers", "expected a list");
  for (const json& item : keys.at("attention_layers")) {
    const Keys entry(item, keys.where() + ": attention_layers");
    LayerOverride layer;
    layer.layers = entry.integers("layers");
    check_layers(entry, "layers", layer.layers);
    if (entry.has("type")) layer.type = named(entry, "type", AttentionType::full, attention_type_from_name);
    if (entry.has("moba_chunk_size")) layer.chunk_size = entry.integer("moba_chunk_size", 0);
    if (entry.has("moba_topk")) layer.topk = entry.integer("moba_topk", 0);
    if (entry.has("window")) layer.window = entry.integer("window", 0);
    if (entry.has("rope")) layer.rope = entry.boolean("rope", true);
    plan.layers.push_back(std::move(layer));
  }
  return plan;
}

DType torch_dtype(const Keys& keys) {
  const std::string name = keys.text(keys.has("dtype") ? "dtype" : "torch_dtype", "float32");
  return name == "bfloat16" ? DType::bf16 : DType::f32;  // weights of any float type are converted on reading
}

// Hugging Face allows a list of end tokens; the first is the one that ends documents.
int64_t token_id(const Keys& keys, const char* key) {
  if (keys.has(key) && keys.at(key).is_array()) {
    const auto list = keys.integers(key);
    return list.empty() ? -1 : list.front();
  }
  return keys.integer(key, -1);
}

}  // namespace

ModelDescription parse_hf_config(const json& config, const std::string& where) {
  const Keys keys(config, where);
  ModelDescription description;
  TransformerConfig& model = description.model;
  model.qk_norm = qk_norm_of(keys);  // also checks model_type, the first thing to say of a foreign model
  refuse_unsupported(keys);
  model.hidden_size = keys.required_integer("hidden_size");
  model.intermediate_size = keys.required_integer("intermediate_size");
  model.num_hidden_layers = keys.required_integer("num_hidden_layers");
  model.num_attention_heads = keys.required_integer("num_attention_heads");
  if (model.num_attention_heads < 1) keys.refuse("num_attention_heads", "must be >= 1, got {}", model.num_attention_heads);
  model.num_key_value_heads = keys.integer("num_key_value_heads", model.num_attention_heads);
  constexpr int64_t kQwen3HeadDim = 128;  // its default does not follow hidden_size
  const bool qwen3 = keys.text("model_type", "") == "qwen3";
  model.head_dim = keys.integer("head_dim", qwen3 ? kQwen3HeadDim : model.hidden_size / model.num_attention_heads);
  model.vocab_size = keys.required_integer("vocab_size");
  model.max_position_embeddings = keys.integer("max_position_embeddings", 2048);
  model.rms_norm_eps = keys.number("rms_norm_eps", 1e-6);  // Hugging Face's default, not ours
  read_rope(keys, model);
  model.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  model.initializer_range = keys.number("initializer_range", 0.02);
  model.key_conv = keys.integer("key_conv", 0);
  description.attention = attention_plan(keys, model.num_hidden_layers);
  try {
    validate(model);
    validate(description.attention, model.num_hidden_layers, 1);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", where, error.what()), error.code());
  }
  description.bos_token_id = token_id(keys, "bos_token_id");
  description.eos_token_id = token_id(keys, "eos_token_id");
  description.dtype = torch_dtype(keys);
  return description;
}

ModelDescription read_model_config(const std::string& dir) {
  const std::string path = dir + "/config.json";
  if (!std::filesystem::exists(path)) throw Error(fmt::format("{} does not exist: {} is no model directory", path, dir));
  json config;
  try {
    config = json::parse(read_whole_file(path));
  } catch (const json::exception& error) {
    throw Error(fmt::format("{} is damaged: {}", path, std::string(error.what()).substr(0, 200)), ExitCode::corrupt_input);
  }
  return parse_hf_config(config, path);
}

}  // namespace moba
