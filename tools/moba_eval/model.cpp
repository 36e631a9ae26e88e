#include "tools/moba_eval/model.h"

#include <filesystem>

#include "src/data/dataset_format.h"
#include "src/data/token_dataset.h"
#include "src/interop/hashed_file.h"
#include "src/train/checkpoint.h"
#include "src/train/recipe.h"

namespace moba::eval {
namespace {

// The checkpoint's plan under --attn and --hybrid-layers, one entry per layer.
std::vector<LayerAttention> planned_layers(const ModelOptions& options, const ModelDescription& description) {
  AttentionPlan plan = description.attention;
  if (options.attention) plan.command_line = parse_attention_option(*options.attention, plan.base);
  if (options.hybrid_layers) {
    plan.hybrid_layers = options.hybrid_layers;
    plan.full_attention_layers.clear();  // the checkpoint's own choice gives way
  }
  const int64_t count = description.model.num_hidden_layers;
  validate(plan, count, 1);
  std::vector<LayerAttention> layers;
  for (int64_t i = 0; i < count; ++i) {
    const PlannedAttention planned = attention_at(plan, i, count, 0, 1);
    layers.push_back({planned.attention, planned.rope});
  }
  return layers;
}

}  // namespace

ForwardOptions LoadedModel::forward() const {
  ForwardOptions options;
  options.layers = layers;
  options.rope_scaling = description.model.rope_scaling;
  return options;
}

std::vector<std::string> LoadedModel::files() const {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) all.push_back(entry.path().string());
  return all;
}

void LoadedModel::check_tokenizer_of(const std::string& dataset) const {
  const std::string path = dir + "/tokenizer.json";
  if (!std::filesystem::exists(path)) return;
  MOBA_CHECK(
      TokenDataset(dataset).info().tokenizer_sha256 == sha256_hex(read_whole_file(path)),
      "{} was made with another tokenizer than the model's, so its ids mean other text: make it with moba-data prepare --tokenizer {}",
      dataset, path);
}

std::unique_ptr<Tokenizer> LoadedModel::tokenizer() const {
  const std::string path = dir + "/tokenizer.json";
  MOBA_CHECK(std::filesystem::exists(path), "{} does not exist; this command needs the checkpoint's tokenizer", path);
  return load_tokenizer(path);
}

LoadedModel open_model(const ModelOptions& options) {
  LoadedModel model;
  model.dir = resolve_checkpoint(options.checkpoint);
  model.description = read_model_config(model.dir);
  model.layers = planned_layers(options, model.description);
  const DType dtype = options.precision == "bf16" ? DType::bf16 : DType::f32;
  model.transformer = std::make_unique<Transformer>(model.description.model, dtype, std::nullopt);
  load_checked_weights(model.dir, *model.transformer);
  return model;
}

}  // namespace moba::eval
