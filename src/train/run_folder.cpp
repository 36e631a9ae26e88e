#include "src/train/run_folder.h"

#include <chrono>
#include <ctime>
#include <filesystem>

#include "kernels/common/check.h"
#include "src/interop/hashed_file.h"
#include "src/train/folder_lock.h"
#include "src/train/host.h"

namespace moba {
namespace {

namespace fs = std::filesystem;

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

bool is_unused(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (!is_lock_file(it->path().filename().string())) return false;
  return true;
}

void make_run_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(fmt::format("cannot make the folder {}: {}", folder, error.message()), ExitCode::io);
}

void clear_run_folder(const std::string& folder) {
  for (const char* name : {"metrics.jsonl", "train.log", "tb"}) fs::remove_all(folder + "/" + name);
}

void describe_run(const Recipe& recipe, const std::string& command_line, const nlohmann::ordered_json& extra) {
  nlohmann::ordered_json run = {{"name", recipe.name},  {"version", project_version()}, {"git_commit", git_commit()},
                                {"started", utc_now()}, {"command_line", command_line}, {"recipe", recipe.file}};
  run.update(host_description());
  run.update(extra);
  const std::string folder = recipe.folder();
  write_hashed_file(folder + "/recipe.yaml", recipe.source);
  write_hashed_file(folder + "/resolved.yaml", resolved_yaml(recipe));
  // Names of files, and so the command line, may be no UTF-8.
  write_hashed_file(folder + "/run.json", run.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::string project_version() { return MOBA_VERSION; }
std::string git_commit() { return MOBA_GIT_COMMIT; }

}  // namespace moba
