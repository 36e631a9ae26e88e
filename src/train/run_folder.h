// The files that describe a run in its folder: recipe.yaml, resolved.yaml, run.json.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "src/train/recipe.h"

namespace moba {

// True if the folder is not there, or empty but for the lock of a start that got no further.
bool is_unused(const std::string& folder);

// Makes the folder. Error(io).
void make_run_folder(const std::string& folder);

// Removes what an earlier start left (metrics, events, the log), for a run that begins at step 0 again.
void clear_run_folder(const std::string& folder);

// recipe.yaml as given, resolved.yaml, run.json. `extra` is added to run.json.
void describe_run(const Recipe& recipe, const std::string& command_line, const nlohmann::ordered_json& extra);

std::string project_version();
std::string git_commit();  // of the build, "" if unknown

}  // namespace moba
