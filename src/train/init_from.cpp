#include "src/train/init_from.h"

#include <fmt/format.h>

#include <filesystem>

#include "src/data/dataset_format.h"
#include "src/interop/hashed_file.h"
#include "src/interop/hf_config.h"
#include "src/train/run_plan.h"

namespace moba {
namespace {

std::string rope_text(const kernels::RopeScaling& s) {
  // Dividing positions and linear scaling are the same thing under two names.
  const double divisor = s.position_interpolation * (s.type == kernels::RopeType::linear ? s.factor : 1);
  const std::string divided = divisor == 1 ? "" : fmt::format("positions divided by {}", divisor);
  if (s.type != kernels::RopeType::llama3) return divided.empty() ? "none" : divided;
  return fmt::format("llama3 (factor {}, low_freq_factor {}, high_freq_factor {}, original_max_position_embeddings {}){}{}", s.factor,
                     s.low_freq_factor, s.high_freq_factor, s.original_max_position_embeddings, divided.empty() ? "" : ", ", divided);
}

// At the start of the run.
std::string attention_text(const AttentionPlan& plan, int64_t num_layers) {
  std::vector<LayerAttention> layers;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const PlannedAttention planned = attention_at(plan, layer, num_layers, 0, 1);
    layers.push_back({planned.attention, planned.rope});
  }
  return describe_layers(layers);
}

// One line for each value that differs.
class Differences {
 public:
  template <class T>
  void compare(const char* key, const T& there, const T& here) {
    if (there != here) lines_.push_back(fmt::format("{}: {} there, {} in the recipe", key, there, here));
  }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

// Sizes that shapes show are compared with the weights themselves.
Differences other_model(const TransformerConfig& there, const TransformerConfig& here) {
  Differences out;
  out.compare("model.num_attention_heads", there.num_attention_heads, here.num_attention_heads);
  out.compare("model.num_key_value_heads", there.num_key_value_heads, here.num_key_value_heads);
  out.compare("model.head_dim", there.resolved_head_dim(), here.resolved_head_dim());
  out.compare("model.vocab_size", there.vocab_size, here.vocab_size);
  out.compare("model.tie_word_embeddings", there.tie_word_embeddings, here.tie_word_embeddings);
  out.compare("model.qk_norm", there.qk_norm, here.qk_norm);
  out.compare("model.attention.key_conv", there.key_conv, here.key_conv);
  return out;
}

Differences other_settings(const ModelDescription& source, const Recipe& recipe) {
  const TransformerConfig &there = source.model, &here = recipe.model;
  Differences out;
  out.compare("model.rope_theta", there.rope_theta, here.rope_theta);
  out.compare("model.rope_scaling", rope_text(there.rope_scaling), rope_text(recipe.stages.front().rope_scaling));
  out.compare("model.rms_norm_eps", there.rms_norm_eps, here.rms_norm_eps);
  out.compare("model.max_position_embeddings", there.max_position_embeddings, here.max_position_embeddings);
  if (there.num_hidden_layers == here.num_hidden_layers)
    out.compare("attention", attention_text(source.attention, there.num_hidden_layers),
                attention_text(recipe.attention, here.num_hidden_layers));
  return out;
}

void check_tokenizer(const std::string& dir, const std::string& data_tokenizer) {
  const std::string path = dir + "/tokenizer.json";
  if (!std::filesystem::exists(path) || sha256_hex(read_whole_file(path)) == data_tokenizer) return;
  throw Error(
      fmt::format("model.init_from: the training data was made with another tokenizer than {}, so the weights know its token ids by other "
                  "meanings; make the data with: moba-data prepare --tokenizer {} ...",
                  path, path));
}

}  // namespace

void check_init_from(const Recipe& recipe, const std::string& dir, const std::string& data_tokenizer,
                     const std::function<void(const std::string&)>& say) {
  const ModelDescription source = read_model_config(dir);
  const Differences refused = other_model(source.model, recipe.model);
  if (!refused.lines().empty())
    throw Error(fmt::format("model.init_from: {} is of another model:\n  {}\nState its values in the recipe, or start from other weights",
                            dir, fmt::join(refused.lines(), "\n  ")));
  check_tokenizer(dir, data_tokenizer);
  const Differences changed = other_settings(source, recipe);
  for (const std::string& line : changed.lines()) say(fmt::format("differs from the weights of model.init_from: {}", line));
}

}  // namespace moba
