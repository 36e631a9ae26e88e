// moba-eval export: a checkpoint as a Hugging Face directory of its own, without optimizer, in the element type wanted.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/data/output_file.h"
#include "src/interop/safetensors.h"
#include "tools/moba_eval/commands.h"

namespace moba::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The text of a special token in tokenizer.json, or null.
json special_token(const json& tokenizer, int64_t id) {
  if (id < 0 || !tokenizer.contains("added_tokens")) return nullptr;
  for (const json& token : tokenizer["added_tokens"])
    if (token.value("id", int64_t{-1}) == id) return token.value("content", "");
  return nullptr;
}

// tokenizer.json as it is, and the small file by which Hugging Face's AutoTokenizer finds it.
void write_tokenizer(const LoadedModel& model, const std::string& dir) {
  const std::string text = read_whole_file(model.dir + "/tokenizer.json");
  write_hashed_file(dir + "/tokenizer.json", text);
  const json tokenizer = json::parse(text);
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"model_max_length", model.description.model.max_position_embeddings},
                 {"clean_up_tokenization_spaces", false}};
  for (const auto& [key, id] :
       {std::pair{"bos_token", model.description.bos_token_id}, std::pair{"eos_token", model.description.eos_token_id}})
    if (const json token = special_token(tokenizer, id); !token.is_null()) config[key] = token;
  write_hashed_file(dir + "/tokenizer_config.json", config.dump(2) + "\n");
}

// The name of a folder that is new or empty, without "." and a last slash: what is beside it has that name and more.
std::string new_folder(const std::string& name) {
  fs::path path = fs::absolute(name).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (fs::exists(fs::symlink_status(path)))
    MOBA_CHECK(fs::is_directory(fs::symlink_status(path)) && fs::is_empty(path),
               "{} exists and is not an empty folder; choose another name", name);
  return path.string();
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw Error(fmt::format("cannot create {}: {}", path, error.message()), ExitCode::io);
}

}  // namespace

void run_export(const ModelOptions& model_options, const ExportOptions& options) {
  const std::string output = new_folder(options.output);
  LoadedModel model = open_model(model_options);
  model.description.dtype = options.dtype == "bf16" ? DType::bf16 : DType::f32;
  const std::string temporary = unused_name_beside(output);
  make_folder(temporary);
  try {
    std::vector<TensorToWrite> tensors;
    for (const Parameter& p : model.transformer->parameters()) tensors.push_back({p.name, p.master, model.description.dtype});
    write_safetensors(temporary + "/model.safetensors", tensors, {{"format", "pt"}});
    write_hashed_file(temporary + "/config.json", hf_config(model.description).dump(2) + "\n");
    if (fs::exists(model.dir + "/tokenizer.json")) write_tokenizer(model, temporary);
    sync_directory(temporary);
    rename_path(temporary, output);  // takes the place of an empty folder
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  fmt::print("{}: {} in {}\n", options.output, hf_config(model.description)["architectures"][0].get<std::string>(), options.dtype);
}

}  // namespace moba::eval
