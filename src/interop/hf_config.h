// config.json as Hugging Face spells it, plus the attention settings as extra keys that other readers ignore.
//
//   model_type llama (LlamaForCausalLM)  the model with full attention is exactly Llama; MoBA adds no parameters
//   model_type qwen3 (Qwen3ForCausalLM)  qk_norm and nothing else
//   model_type moba  (MobaForCausalLM)   key_conv, window layers, layers without positions, or what those two cannot say,
//                                        so that no reader drops a part silently
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "src/layers/config.h"
#include "src/moba/schedule.h"

namespace moba {

struct ModelDescription {
  TransformerConfig model;
  AttentionPlan attention;    // of the model alone: no schedule, nothing from a command line (see frozen_plan)
  int64_t bos_token_id = -1;  // -1: none
  int64_t eos_token_id = -1;
  DType dtype = DType::f32;  // torch_dtype of the weights beside it
};

// The plan as it stands after tokens_so_far: schedule and command line resolved into one entry per layer.
AttentionPlan frozen_plan(const AttentionPlan& plan, int64_t num_layers, int64_t tokens_so_far, int64_t total_tokens);

nlohmann::json hf_config(const ModelDescription& description);
// `where` starts every message. Settings that this project does not have (biases, other activations, other rope types, ...) are
// refused by name, never ignored.
ModelDescription parse_hf_config(const nlohmann::json& config, const std::string& where);
ModelDescription read_model_config(const std::string& dir);  // dir/config.json

}  // namespace moba
