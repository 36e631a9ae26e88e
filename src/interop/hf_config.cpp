#include "src/interop/hf_config.h"

#include <cmath>

namespace moba {
namespace {

using kernels::AttentionType;
using kernels::RopeType;
using nlohmann::json;

// Every layer's attention by the plan, at its end if it has a schedule.
std::vector<PlannedAttention> planned_layers(const AttentionPlan& plan, int64_t num_layers) {
  std::vector<PlannedAttention> layers;
  for (int64_t layer = 0; layer < num_layers; ++layer) layers.push_back(attention_at(plan, layer, num_layers, 0, 1));
  return layers;
}

struct ModelType {
  const char* type;
  const char* architecture;
};

ModelType model_type_of(const TransformerConfig& model, const std::vector<PlannedAttention>& layers) {
  constexpr ModelType kMoba = {"moba", "MobaForCausalLM"};
  if (model.key_conv != 0) return kMoba;
  if (model.rope_scaling.type == RopeType::llama3 && model.rope_scaling.position_interpolation != 1) return kMoba;
  for (const PlannedAttention& layer : layers)
    if (layer.attention.type == AttentionType::window || !layer.rope || layer.attention.softmax_scale != 0) return kMoba;
  if (model.qk_norm) return {"qwen3", "Qwen3ForCausalLM"};
  return {"llama", "LlamaForCausalLM"};
}

json rope_scaling_json(const kernels::RopeScaling& scaling) {
  const double interpolation = scaling.position_interpolation;
  switch (scaling.type) {
    case RopeType::none:
      if (interpolation == 1) return nullptr;
      return {{"rope_type", "linear"}, {"factor", interpolation}};  // the same thing under its usual name
    case RopeType::linear: return {{"rope_type", "linear"}, {"factor", scaling.factor * interpolation}};
    case RopeType::llama3: break;
  }
  json result = {{"rope_type", "llama3"},
                 {"factor", scaling.factor},
                 {"low_freq_factor", scaling.low_freq_factor},
                 {"high_freq_factor", scaling.high_freq_factor},
                 {"original_max_position_embeddings", scaling.original_max_position_embeddings}};
  if (interpolation != 1) result["position_interpolation"] = interpolation;
  return result;
}

// What differs in a layer from the model's settings, or null.
json layer_json(int64_t index, const PlannedAttention& layer, const AttentionConfig& base) {
  json entry = {{"layers", {index}}};
  const AttentionConfig& a = layer.attention;
  if (a.type != base.type) entry["type"] = attention_type_name(a.type);
  if (a.moba.chunk_size != base.moba.chunk_size) entry["moba_chunk_size"] = a.moba.chunk_size;
  if (a.moba.topk != base.moba.topk) entry["moba_topk"] = a.moba.topk;
  if (a.window != base.window) entry["window"] = a.window;
  if (!layer.rope) entry["rope"] = false;
  return entry.size() > 1 ? entry : json();
}

void add_attention(json& config, const AttentionPlan& plan, const std::vector<PlannedAttention>& layers) {
  const AttentionConfig& base = plan.base;
  config["attention_type"] = attention_type_name(base.type);
  config["moba_chunk_size"] = base.moba.chunk_size;
  config["moba_topk"] = base.moba.topk;
  config["gate"] = kernels::gate_name(base.moba.gate);
  config["select"] = kernels::select_name(base.moba.select);
  if (base.moba.gate == kernels::Gate::random) config["gate_seed"] = base.moba.seed;
  if (base.window != 0) config["window"] = base.window;
  if (base.softmax_scale != 0) config["softmax_scale"] = base.softmax_scale;
  if (!plan.full_attention_layers.empty()) config["full_attention_layers"] = plan.full_attention_layers;

  // Layers that full_attention_layers names keep what the other keys say of them.
  AttentionPlan without_pins = plan;
  without_pins.full_attention_layers.clear();
  const auto unpinned = planned_layers(without_pins, static_cast<int64_t>(layers.size()));
  json overrides = json::array();
  for (size_t i = 0; i < unpinned.size(); ++i)
    if (json entry = layer_json(static_cast<int64_t>(i), unpinned[i], base); !entry.is_null()) overrides.push_back(std::move(entry));
  if (!overrides.empty()) config["attention_layers"] = std::move(overrides);
}

}  // namespace

AttentionPlan frozen_plan(const AttentionPlan& plan, int64_t num_layers, int64_t tokens_so_far, int64_t total_tokens) {
  AttentionPlan frozen;
  frozen.base = plan.base;
  for (int64_t i = 0; i < num_layers; ++i) {
    const PlannedAttention layer = attention_at(plan, i, num_layers, tokens_so_far, total_tokens);
    const AttentionConfig& a = layer.attention;
    frozen.layers.push_back(
        {.layers = {i}, .type = a.type, .chunk_size = a.moba.chunk_size, .topk = a.moba.topk, .window = a.window, .rope = layer.rope});
  }
  return frozen;
}

json hf_config(const ModelDescription& description) {
  const TransformerConfig& m = description.model;
  MOBA_ASSERT(description.attention.schedule.empty() && !description.attention.command_line && !description.attention.hybrid_layers);
  MOBA_ASSERT(description.dtype == DType::f32 || description.dtype == DType::bf16);
  const auto layers = planned_layers(description.attention, m.num_hidden_layers);
  const ModelType type = model_type_of(m, layers);

  json config;
  config["architectures"] = {type.architecture};
  config["model_type"] = type.type;
  config["torch_dtype"] = description.dtype == DType::f32 ? "float32" : "bfloat16";
  config["hidden_size"] = m.hidden_size;
  config["intermediate_size"] = m.intermediate_size;
  config["num_hidden_layers"] = m.num_hidden_layers;
  config["num_attention_heads"] = m.num_attention_heads;
  config["num_key_value_heads"] = m.num_key_value_heads;
  config["head_dim"] = m.head_dim ? m.head_dim : m.hidden_size / m.num_attention_heads;
  config["vocab_size"] = m.vocab_size;
  config["max_position_embeddings"] = m.max_position_embeddings;
  config["rms_norm_eps"] = m.rms_norm_eps;
  config["rope_theta"] = m.rope_theta;
  config["rope_scaling"] = rope_scaling_json(m.rope_scaling);
  config["tie_word_embeddings"] = m.tie_word_embeddings;
  config["initializer_range"] = m.initializer_range;
  config["hidden_act"] = "silu";
  config["attention_bias"] = false;
  config["mlp_bias"] = false;
  config["attention_dropout"] = 0.0;
  config["use_cache"] = true;
  config["bos_token_id"] = description.bos_token_id < 0 ? json() : json(description.bos_token_id);
  config["eos_token_id"] = description.eos_token_id < 0 ? json() : json(description.eos_token_id);
  config["qk_norm"] = m.qk_norm;
  config["key_conv"] = m.key_conv;
  if (std::string(type.type) == "qwen3") config["use_sliding_window"] = false;
  add_attention(config, description.attention, layers);
  return config;
}

}  // namespace moba
