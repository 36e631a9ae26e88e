#include "src/train/checkpoint.h"

#include <filesystem>
#include <map>
#include <set>

#include "src/distributed/agree.h"
#include "src/interop/safetensors.h"
#include "src/train/checkpoint_folders.h"
#include "src/train/checkpoint_manifest.h"

namespace moba {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kOptimizerPrefix = "optimizer-";
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

// What this process writes: everything, or the parameters it owns.
class Part {
 public:
  explicit Part(const CheckpointContents& contents)
      : contents_(contents), rank_(contents.ranks ? contents.ranks->rank() : 0), ranks_(contents.ranks ? contents.ranks->size() : 1) {
    MOBA_ASSERT(ranks_ == 1 || contents.owners.size() == contents.model.parameters().size());
  }

  bool sharded() const { return ranks_ > 1; }
  bool is_root() const { return rank_ == 0; }
  std::string weights_file(int rank) const {
    return sharded() ? fmt::format("model-{:05}-of-{:05}.safetensors", rank + 1, ranks_) : "model.safetensors";
  }

  // Weights and moments into dir; adds their digests.
  void write(const std::string& dir, Manifest& manifest) const {
    const std::string weights = weights_file(rank_), optimizer = fmt::format("{}{:05}.safetensors", kOptimizerPrefix, rank_);
    manifest[weights] = write_safetensors(dir + "/" + weights, masters(), {{"format", "pt"}});
    if (contents_.optimizer) manifest[optimizer] = write_safetensors(dir + "/" + optimizer, moments(), {});
  }

  // Which shard holds which tensor, as Hugging Face readers expect it.
  std::string index() const {
    json map = json::object();
    int64_t bytes = 0;
    for (size_t i = 0; i < contents_.owners.size(); ++i) {
      const Parameter& p = contents_.model.parameters()[i];
      map[p.name] = weights_file(contents_.owners[i]);
      bytes += numel(p.value.shape()) * static_cast<int64_t>(sizeof(float));
    }
    return json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n";
  }

 private:
  bool mine(size_t parameter) const { return !sharded() || contents_.owners[parameter] == rank_; }

  std::vector<TensorToWrite> masters() const {
    std::vector<TensorToWrite> tensors;
    const std::vector<Parameter>& parameters = contents_.model.parameters();
    for (size_t i = 0; i < parameters.size(); ++i)
      if (mine(i)) tensors.push_back({parameters[i].name, parameters[i].master, parameters[i].master.dtype()});
    return tensors;
  }

  // State tensors are named "<parameter>.<slot>"; an optimizer that is not sharded has those of every parameter on every rank.
  std::vector<TensorToWrite> moments() const {
    std::set<std::string, std::less<>> names;
    const std::vector<Parameter>& parameters = contents_.model.parameters();
    for (size_t i = 0; i < parameters.size(); ++i)
      if (mine(i)) names.insert(parameters[i].name);
    std::vector<TensorToWrite> tensors;
    for (const Optimizer::State& s : contents_.optimizer->state())
      if (names.contains(std::string_view(s.name).substr(0, s.name.rfind('.')))) tensors.push_back({s.name, s.value, s.value.dtype()});
    return tensors;
  }

  const CheckpointContents& contents_;
  int rank_, ranks_;
};

// What is not split over ranks, and the manifest of everything, last.
void write_root_files(const std::string& dir, const CheckpointContents& contents, const Part& part, Manifest manifest) {
  const auto write = [&](const char* name, const std::string& text) { manifest[name] = write_hashed_file(dir + "/" + name, text); };
  write("config.json", contents.config.dump(2) + "\n");
  if (part.sharded()) write("model.safetensors.index.json", part.index());
  if (!contents.tokenizer_json.empty()) write("tokenizer.json", contents.tokenizer_json);
  json trainer_state = contents.trainer_state.is_null() ? json::object() : contents.trainer_state;
  trainer_state["step"] = contents.step;
  write(kTrainerFile, trainer_state.dump(2) + "\n");
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
  const std::unique_ptr<Communicator> alone = contents.ranks ? nullptr : make_self_communicator();
  Communicator& ranks = contents.ranks ? *contents.ranks : *alone;
  const std::string checkpoints = checkpoints_dir(run_dir), name = step_folder_name(contents.step);
  const std::string path = checkpoints + "/" + name, temporary = checkpoints + "/.tmp-" + name;
  const Part part(contents);
  std::optional<TemporaryFolder> folder;  // on rank 0
  from_root(ranks, "checkpoint folder", [&] {
    remove_leftovers(checkpoints);
    folder.emplace(temporary);
    sync_directory(run_dir);  // checkpoints/ itself may be new
    return "";
  });
  Manifest mine;
  together(ranks, "checkpoint parts", [&] { part.write(temporary, mine); });
  Manifest manifest;
  for (const std::string& digests : ranks.all_gather_strings(manifest_text(mine), "checkpoint digests")) add_manifest(digests, manifest);
  from_root(ranks, "checkpoint", [&] {
    write_root_files(temporary, contents, part, manifest);
    folder->publish(path);
    point_latest(checkpoints, name);
    prune(checkpoints, contents.step, keep_last);
    return "";
  });
  return path;
}

std::optional<std::string> newest_checkpoint(const std::string& run_dir, const std::function<void(const std::string&)>& log) {
  for (const StepFolder& folder : step_folders(checkpoints_dir(run_dir))) {
    try {
      verify_checkpoint(folder.path);
      return folder.path;
    } catch (const Error& error) {
      if (error.code() == ExitCode::io) throw;  // unreachable, perhaps for a moment: not damaged
      log(fmt::format("{}; falling back to the checkpoint before it", error.what()));
    }
  }
  return std::nullopt;
}

void load_optimizer(const std::string& dir, Optimizer& optimizer, int64_t state_tensors) {
  std::map<std::string, SafetensorsReader> files;
  std::map<std::string, const SafetensorsReader*> file_of;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir))
    if (const std::string name = entry.path().filename().string(); name.starts_with(kOptimizerPrefix) && name.ends_with(".safetensors"))
      files.emplace(name, SafetensorsReader(entry.path().string()));
  for (const auto& [name, reader] : files)
    for (const auto& [tensor, entry] : reader.entries()) file_of[tensor] = &reader;
  const auto misfit = [&](const std::string& what) {
    throw Error(fmt::format("{}/{}*.safetensors: {}; is it another optimizer's?", dir, kOptimizerPrefix, what), ExitCode::corrupt_input);
  };
  if (static_cast<int64_t>(file_of.size()) != state_tensors)
    misfit(fmt::format("{} tensors, this optimizer has {}", file_of.size(), state_tensors));
  for (const Optimizer::State& s : optimizer.state()) {
    const auto found = file_of.find(s.name);
    if (found == file_of.end()) misfit(fmt::format("no tensor {}", s.name));
    found->second->read(s.name, s.value);
  }
}

json load_checkpoint(const std::string& dir, Transformer& model, Optimizer* optimizer) {
  load_weights(dir, model);
  if (optimizer) load_optimizer(dir, *optimizer, static_cast<int64_t>(optimizer->state().size()));
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
