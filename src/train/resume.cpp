#include "src/train/resume.h"

#include <filesystem>

#include "src/interop/hashed_file.h"
#include "src/interop/hf_config.h"
#include "src/train/checkpoint.h"
#include "src/train/checkpoint_folders.h"
#include "src/train/metrics.h"
#include "src/train/run_folder.h"
#include "src/train/schema.h"

namespace moba {
namespace {

namespace fs = std::filesystem;

// Options of the command line that change what a run does without being keys of a recipe.
constexpr const char* kAttentionOption = "--attn";
constexpr const char* kHybridOption = "--hybrid-layers";

// Attention has no parameters, so what the layers do may change between two starts of a run; the key convolution has. (Positions of
// layers are compared by themselves.)
bool is_identity(const std::string& key) {
  if (key.starts_with("model.attention.")) return key == "model.attention.key_conv";
  if (key == "model.init_from" || key == "model.max_position_embeddings") return false;
  if (key == "data.train" || key == "data.validation" || key == "train.stages[].data") return false;  // compared by content
  for (const char* section : {"model.", "data.", "sft."})
    if (key.starts_with(section)) return true;
  // Another optimizer cannot go on from the moments of this one.
  return key == "task" || key == "run.seed" || key == "optimizer.name" || key == "train.sequence_length" || key == "train.stages" ||
         key == "train.precision";
}

std::string one_line(const YamlNode& node) {
  YamlNode map;
  map.set("v", node, "");
  std::string text = emit_yaml(map).substr(2);
  std::string out;
  for (char c : text) {
    if (c == '\n') c = ' ';
    if (c == ' ' && (out.empty() || out.back() == ' ')) continue;
    out += c;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// Stages without their files, which are compared by content.
YamlNode without_data(YamlNode stages) {
  for (YamlNode& stage : stages.items) stage.erase("data");
  return stages;
}

// Numbers of the layers that have no position encoding.
std::string without_positions(const AttentionPlan& plan, int64_t num_layers) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < num_layers; ++layer)
    if (!attention_at(plan, layer, num_layers, 0, 1).rope) layers.push_back(layer);
  return layers.empty() ? "no layer" : fmt::format("{} {}", layers.size() == 1 ? "layer" : "layers", fmt::join(layers, ", "));
}

}  // namespace

bool may_resume(const Recipe& recipe, const std::string& option) {
  return option == "auto" ? !step_folders(recipe.folder() + "/checkpoints").empty() : option != "never";
}

std::optional<std::string> checkpoint_to_resume(const Recipe& recipe, const std::string& option,
                                                const std::function<void(const std::string&)>& say) {
  const std::string folder = recipe.folder();
  if (option == "auto") {
    const auto found = newest_checkpoint(folder, say);
    if (!found && fs::exists(folder + "/metrics.jsonl"))
      say(fmt::format("{} has no complete checkpoint: starting again at step 0", folder));
    return found;
  }
  if (option == "never") {
    MOBA_CHECK(is_unused(folder),
               "--resume never: {} is not empty; choose another run.name, remove the folder, or let --resume auto go on with it", folder);
    return {};
  }
  MOBA_CHECK(fs::is_directory(option), "--resume {}: must be auto, never or a checkpoint's folder (there is no such folder)", option);
  const std::string checkpoint = resolve_checkpoint(option);
  MOBA_CHECK(fs::exists(checkpoint + "/trainer_state.json"),
             "--resume {}: holds no trainer_state.json; to start from weights alone use model.init_from", option);
  verify_checkpoint(checkpoint);
  return checkpoint;
}

bool is_newest_checkpoint(const Recipe& recipe, const std::string& checkpoint) {
  const auto folders = step_folders(recipe.folder() + "/checkpoints");
  std::error_code error;
  return !folders.empty() && fs::equivalent(folders.front().path, checkpoint, error);
}

bool is_evaluated(const Recipe& recipe, const std::string& checkpoint, int64_t step) {
  std::error_code error;
  // Metrics of this folder tell nothing of another run's checkpoint.
  const bool own = fs::equivalent(fs::path(checkpoint).parent_path(), recipe.folder() + "/checkpoints", error);
  return own && has_evaluation(recipe.folder(), step);
}

nlohmann::json read_trainer_state(const std::string& checkpoint) {
  const std::string path = checkpoint + "/trainer_state.json";
  const auto state = nlohmann::json::parse(read_whole_file(path), nullptr, false);
  if (!state.is_object() || !state.contains("progress")) throw Error(fmt::format("{}: not a trainer state", path), ExitCode::corrupt_input);
  return state;
}

nlohmann::json recipe_settings(const Recipe& recipe) {
  nlohmann::json out = nlohmann::json::object();
  for (const KeySpec& key : recipe_keys()) {
    if (key.kind == KeyKind::section || key.name.find("[]") != std::string_view::npos) continue;
    const YamlNode* node = find_path(recipe.tree, key.name);
    if (node && node->kind != YamlNode::Kind::null)
      out[std::string(key.name)] = one_line(key.name == "train.stages" ? without_data(*node) : *node);
  }
  if (const auto& forced = recipe.attention.command_line)
    out[kAttentionOption] = forced->naive ? "moba_naive" : attention_type_name(forced->type);
  if (recipe.attention.hybrid_layers) out[kHybridOption] = *recipe.attention.hybrid_layers;
  return out;
}

void check_resumable(const nlohmann::json& state, const Recipe& recipe, const nlohmann::json& settings, const nlohmann::json& data,
                     const std::string& checkpoint, const std::function<void(const std::string&)>& say) {
  const nlohmann::json &saved_settings = state.at("settings"), &saved_data = state.at("data");
  std::vector<std::string> refused, keys = {kAttentionOption, kHybridOption};
  for (const KeySpec& spec : recipe_keys()) keys.emplace_back(spec.name);
  for (const std::string& key : keys) {
    const std::string before = saved_settings.value(key, "none"), now = settings.value(key, "none");
    if (before == now) continue;
    if (is_identity(key))
      refused.push_back(fmt::format("{}: was {}, is now {}", key, before, now));
    else
      say(fmt::format("changed since the checkpoint: {}: {} -> {}", key, before, now));
  }
  const ModelDescription saved = read_model_config(checkpoint);
  const std::string before = without_positions(saved.attention, saved.model.num_hidden_layers);
  const std::string now = without_positions(recipe.attention, recipe.model.num_hidden_layers);
  if (before != now) refused.push_back(fmt::format("model.attention.layers: rope was false in {}, is now in {}", before, now));
  if (saved_data != data)
    refused.push_back(fmt::format("data: files, their content or weights differ: was {}, is now {}", saved_data.dump(), data.dump()));
  if (refused.empty()) return;
  throw Error(fmt::format(
      "{} cannot go on with this recipe:\n{}\nUndo the change, choose another run.name, or start a new run from these weights with "
      "model.init_from={}",
      checkpoint, fmt::join(refused, "\n"), checkpoint));
}

}  // namespace moba
