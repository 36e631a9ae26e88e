// Names and moves of step folders inside <run>/checkpoints. Names that start with ".tmp-" belong to a save or a removal that
// was cut short; they count for nothing and the next save clears them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moba {

struct StepFolder {
  int64_t step = 0;
  std::string path;
};

std::string step_folder_name(int64_t step);                                // "step-00001000"
std::vector<StepFolder> step_folders(const std::string& checkpoints_dir);  // descending steps; empty if there is no such folder
void remove_leftovers(const std::string& checkpoints_dir);

// Puts a complete temporary folder in its place and makes that durable. A folder of the same name is exchanged for it in one
// atomic step where the file system can, and removed.
void publish_folder(const std::string& temporary, const std::string& path);
void point_latest(const std::string& checkpoints_dir, const std::string& name);
// Renamed away first, so that a removal cut short leaves no half folder under a step's name.
void remove_folder(const std::string& checkpoints_dir, const StepFolder& folder);

}  // namespace moba
