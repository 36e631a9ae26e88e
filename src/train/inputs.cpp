// The files a recipe needs: which are missing, how to make them, and what their vocabulary demands of the model.
#include <fmt/format.h>

#include <filesystem>

#include "src/train/recipe.h"

namespace moba {
namespace {

namespace fs = std::filesystem;

struct Input {
  std::string key, where, path;
};

void add_sources(const YamlNode* list, const std::string& key, std::vector<Input>& out) {
  if (!list) return;
  for (const YamlNode& item : list->items)
    if (const YamlNode* path = item.get("path")) out.push_back({key, path->where, path->text});
}

std::vector<Input> data_files(const Recipe& recipe) {
  std::vector<Input> out;
  add_sources(find_path(recipe.tree, "data.train"), "data.train", out);
  if (const YamlNode* stages = find_path(recipe.tree, "train.stages"))
    for (const YamlNode& stage : stages->items) add_sources(stage.get("data"), "train.stages", out);
  const YamlNode* validation = find_path(recipe.tree, "data.validation");
  for (size_t i = 0; i < recipe.validation.size(); ++i) {
    const bool list = validation->kind == YamlNode::Kind::list;
    out.push_back({"data.validation", list ? validation->items[i].where : validation->where, recipe.validation[i]});
  }
  return out;
}

// tools/dataset NAME makes the files in data/NAME/.
std::string command_for_data(const std::string& path, bool sft) {
  const fs::path folder = fs::path(path).lexically_normal().parent_path();
  const std::string name = folder.filename().string();
  if (folder.parent_path() == "data")
    for (const char* known : {"quickstart", "medium", "medium_mini", "long", "code", "sft"})
      if (name == known) return "tools/dataset " + name;
  return fmt::format("moba-data prepare {}--tokenizer TOKENIZER --input {}... --output {}", sft ? "--sft " : "", sft ? "CHATS" : "TEXT",
                     path);
}

// Runs bear their recipe's name, and with another attention NAME-ATTENTION. Empty if no recipe beside this one makes the run.
std::string command_for_weights(const std::string& path, const fs::path& recipes) {
  const fs::path p = fs::path(path).lexically_normal();
  auto part = p.begin();
  if (part == p.end() || *part != "runs" || ++part == p.end()) return "";
  const std::string run = part->string(), name = run.substr(0, run.rfind('-'));
  if (name == "quickstart") return "tools/quickstart";
  if (fs::exists(recipes / (run + ".yaml"))) return fmt::format("moba-train {}", (recipes / (run + ".yaml")).string());
  if (name == run || !fs::exists(recipes / (name + ".yaml"))) return "";
  return fmt::format("moba-train {} --attn {} run.name={}", (recipes / (name + ".yaml")).string(), run.substr(name.size() + 1), run);
}

std::string missing_message(const Input& input, const std::string& command) {
  const std::string remedy = command.empty() ? "it must hold config.json and *.safetensors" : "make it with: " + command;
  return fmt::format("{}: {}: {} does not exist; {}", input.where, input.key, input.path, remedy);
}

}  // namespace

std::vector<std::string> missing_inputs(const Recipe& recipe, bool goes_on) {
  std::vector<std::string> out;
  for (const Input& input : data_files(recipe))
    if (!fs::exists(input.path)) out.push_back(missing_message(input, command_for_data(input.path, recipe.sft)));
  if (!goes_on && !recipe.init_from.empty() && !fs::exists(recipe.init_from)) {
    const Input input{"model.init_from", find_path(recipe.tree, "model.init_from")->where, recipe.init_from};
    out.push_back(missing_message(input, command_for_weights(recipe.init_from, fs::path(recipe.file).parent_path())));
  }
  return out;
}

void resolve_vocabulary(Recipe& recipe) {
  std::vector<std::string> errors;
  int64_t largest = 0;
  std::string tokenizer, first;
  for (const Input& input : data_files(recipe)) {
    if (!fs::exists(input.path)) continue;
    const DatasetInfo info = TokenDataset(input.path).info();
    largest = std::max(largest, info.vocab_size);
    if (recipe.model.vocab_size > 0 && info.vocab_size > recipe.model.vocab_size)
      errors.push_back(fmt::format("{}: model.vocab_size: {} is below the {} of {}", find_path(recipe.tree, "model.vocab_size")->where,
                                   recipe.model.vocab_size, info.vocab_size, input.path));
    if (tokenizer.empty()) tokenizer = info.tokenizer_sha256, first = input.path;
    if (info.tokenizer_sha256 != tokenizer)
      errors.push_back(fmt::format("{}: {}: {} and {} were made with different tokenizers", input.where, input.key, first, input.path));
  }
  if (recipe.model.vocab_size == 0 && largest == 0)
    errors.push_back(fmt::format("{}: model.vocab_size: neither stated nor known from the data, which is missing", recipe.file));
  if (!errors.empty()) throw Error(fmt::format("{}", fmt::join(errors, "\n")));
  if (recipe.model.vocab_size > 0) return;
  recipe.model.vocab_size = largest;
  set_path(recipe.tree, "model.vocab_size", yaml_scalar(std::to_string(largest)), "data");
}

}  // namespace moba
