#include "src/train/checkpoint.h"

#include <filesystem>

#include "src/interop/safetensors.h"
#include "src/train/checkpoint_folders.h"
#include "src/train/checkpoint_manifest.h"

namespace moba {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kOptimizerFile = "optimizer-00000.safetensors";
constexpr const char* kTrainerFile = "trainer_state.json";

std::string checkpoints_dir(const std::string& run_dir) { return run_dir + "/checkpoints"; }

// Removes the folder it was given unless the save came to its end.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {
    std::error_code error;
    fs::create_directories(path_, error);
    if (error) throw Error(fmt::format("cannot create {}: {}", path_, error.message()), ExitCode::io);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!published_) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  void publish(const std::string& to) {
    publish_folder(path_, to);
    published_ = true;
  }

 private:
  std::string path_;
  bool published_ = false;
};

std::vector<TensorToWrite> masters_of(Transformer& model) {
  std::vector<TensorToWrite> tensors;
  for (const Parameter& p : model.parameters()) tensors.push_back({p.name, p.master, p.master.dtype()});
  return tensors;
}

std::vector<TensorToWrite> state_of(const Optimizer& optimizer) {
  std::vector<TensorToWrite> tensors;
  for (const Optimizer::State& s : optimizer.state()) tensors.push_back({s.name, s.value, s.value.dtype()});
  return tensors;
}

void write_files(const std::string& dir, const CheckpointContents& contents) {
  Manifest manifest;
  const auto path = [&](const char* name) { return dir + "/" + name; };
  manifest["config.json"] = write_hashed_file(path("config.json"), contents.config.dump(2) + "\n");
  manifest["model.safetensors"] = write_safetensors(path("model.safetensors"), masters_of(contents.model), {{"format", "pt"}});
  if (contents.optimizer) manifest[kOptimizerFile] = write_safetensors(path(kOptimizerFile), state_of(*contents.optimizer), {});
  if (!contents.tokenizer_json.empty()) manifest["tokenizer.json"] = write_hashed_file(path("tokenizer.json"), contents.tokenizer_json);
  json trainer_state = contents.trainer_state.is_null() ? json::object() : contents.trainer_state;
  trainer_state["step"] = contents.step;
  manifest[kTrainerFile] = write_hashed_file(path(kTrainerFile), trainer_state.dump(2) + "\n");
  write_manifest(dir, contents.step, manifest);
  sync_directory(dir);
}

// Steps after `step` belong to a history that the run went back behind.
void prune(const std::string& checkpoints, int64_t step, int keep_last) {
  int kept = 0;
  for (const StepFolder& folder : step_folders(checkpoints)) {
    const bool keep = folder.step <= step && (keep_last <= 0 || kept < keep_last);
    kept += keep;
    if (!keep) remove_folder(checkpoints, folder);
  }
}

}  // namespace

std::string save_checkpoint(const std::string& run_dir, const CheckpointContents& contents, int keep_last) {
  const std::string checkpoints = checkpoints_dir(run_dir);
  const std::string name = step_folder_name(contents.step);
  const std::string path = checkpoints + "/" + name;
  remove_leftovers(checkpoints);
  TemporaryFolder folder(checkpoints + "/.tmp-" + name);
  sync_directory(run_dir);  // checkpoints/ itself may be new
  write_files(folder.path(), contents);
  folder.publish(path);
  point_latest(checkpoints, name);
  prune(checkpoints, contents.step, keep_last);
  return path;
}

std::optional<std::string> newest_checkpoint(const std::string& run_dir, const std::function<void(const std::string&)>& log) {
  for (const StepFolder& folder : step_folders(checkpoints_dir(run_dir))) {
    try {
      verify_checkpoint(folder.path);
      return folder.path;
    } catch (const Error& error) {
      log(fmt::format("{}; falling back to the checkpoint before it", error.what()));
    }
  }
  return std::nullopt;
}

json load_checkpoint(const std::string& dir, Transformer& model, Optimizer* optimizer) {
  load_weights(dir, model);
  if (optimizer) {
    const SafetensorsReader reader(dir + "/" + kOptimizerFile);
    const auto state = optimizer->state();
    for (const Optimizer::State& s : state) reader.read(s.name, s.value);
    if (state.size() != reader.entries().size())
      throw Error(fmt::format("{} has {} tensors, this optimizer has {}; is it another optimizer's?", reader.path(),
                              reader.entries().size(), state.size()),
                  ExitCode::corrupt_input);
  }
  const std::string path = dir + "/" + kTrainerFile;
  try {
    return json::parse(read_whole_file(path));
  } catch (const json::exception& error) {
    throw Error(fmt::format("{} is damaged: {}", path, std::string(error.what()).substr(0, 200)), ExitCode::corrupt_input);
  }
}

std::string resolve_checkpoint(const std::string& path) {
  const auto is_model = [](const std::string& dir) { return fs::exists(dir + "/config.json"); };
  if (is_model(path)) return path;
  for (const char* below : {"/checkpoints/latest", "/latest"})
    if (is_model(path + below)) return fs::canonical(path + below).string();
  throw Error(fs::exists(path)
                  ? fmt::format("{} holds neither config.json nor checkpoints/latest: it is no checkpoint and no run with one", path)
                  : fmt::format("{} does not exist; expected a checkpoint, a run's folder or a Hugging Face directory", path));
}

}  // namespace moba
