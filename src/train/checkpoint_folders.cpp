#include "src/train/checkpoint_folders.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "kernels/common/check.h"
#include "src/interop/hashed_file.h"

namespace moba {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kTemporary = ".tmp-";

// Failing to clear leftovers never fails a save: they cost space only.
void remove_quietly(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

// True if both names now hold each other's folder; false if the file system cannot do that.
bool exchange(const std::string& a, const std::string& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS) return false;
  throw Error(fmt::format("cannot put {} in the place of {}: {}", a, b, std::strerror(errno)), ExitCode::io);
}

}  // namespace

std::string step_folder_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::vector<StepFolder> step_folders(const std::string& checkpoints_dir) {
  std::vector<StepFolder> folders;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints_dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kPrefix) || it->is_symlink() || !it->is_directory()) continue;
    int64_t step = 0;
    const char* last = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), last, step);
    if (parsed.ec == std::errc() && parsed.ptr == last && step >= 0) folders.push_back({step, it->path().string()});
  }
  // A folder that cannot be read is not an empty one: a run would start again over its checkpoints.
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    throw Error(fmt::format("cannot list {}: {}", checkpoints_dir, error.message()), ExitCode::io);
  std::sort(folders.begin(), folders.end(), [](const StepFolder& a, const StepFolder& b) { return a.step > b.step; });
  return folders;
}

void remove_leftovers(const std::string& checkpoints_dir) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints_dir, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(kTemporary)) leftovers.push_back(it->path());
  for (const fs::path& path : leftovers) remove_quietly(path);
}

void publish_folder(const std::string& temporary, const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  if (!fs::exists(path)) {
    rename_path(temporary, path);
    return sync_directory(parent);
  }
  if (exchange(temporary, path)) {
    sync_directory(parent);
    return remove_quietly(temporary);
  }
  const std::string old = fmt::format("{}/{}old-{}", parent, kTemporary, fs::path(path).filename().string());
  remove_quietly(old);
  rename_path(path, old);
  rename_path(temporary, path);
  sync_directory(parent);
  remove_quietly(old);
}

void point_latest(const std::string& checkpoints_dir, const std::string& name) {
  const std::string link = checkpoints_dir + "/latest";
  const std::string temporary = fmt::format("{}/{}latest", checkpoints_dir, kTemporary);
  ::unlink(temporary.c_str());
  if (::symlink(name.c_str(), temporary.c_str()) != 0)
    throw Error(fmt::format("cannot create {}: {}", temporary, std::strerror(errno)), ExitCode::io);
  rename_path(temporary, link);
  sync_directory(checkpoints_dir);
}

void remove_folder(const std::string& checkpoints_dir, const StepFolder& folder) {
  const std::string trash = fmt::format("{}/{}old-{}", checkpoints_dir, kTemporary, fs::path(folder.path).filename().string());
  remove_quietly(trash);
  rename_path(folder.path, trash);
  remove_quietly(trash);
}

}  // namespace moba
