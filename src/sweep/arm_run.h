// One arm with one seed: what moba-train is called with, and what its recipe then says.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/sweep/sweep_file.h"
#include "src/train/recipe.h"

namespace moba::sweep {

// Settings that are no words of a recipe but what stands in its inputs, and the one key that may come from them.
inline constexpr const char* kDataContent = "content of data";
inline constexpr const char* kStartContent = "content of model.init_from";
inline constexpr const char* kVocabulary = "model.vocab_size";
inline constexpr const char* kOutputDir = "run.output_dir";

struct ArmRun {
  Arm arm;
  uint64_t seed = 0;
  bool asked = true;                   // false: --only names other arms; its results count, but it is not run
  std::string name;                    // ARM-sSEED, the run's name and folder
  std::vector<std::string> arguments;  // of moba-train, program name left out
  Recipe recipe;
  // What makes a finished run this run: every resolved key but kOutputDir (results may be moved), content of the data and of the start
  // model.
  nlohmann::json settings;
  std::vector<std::string> unknown;  // settings that only inputs can tell which are missing now
  std::string folder() const { return recipe.folder(); }
};

struct Sweep {
  SweepFile file;
  std::string name, output_dir;  // of the sweep's folder; run.name and run.output_dir of the command line
  std::string command_line;
  std::vector<ArmRun> runs;          // seed by seed: after the first seed every arm has a result
  std::vector<std::string> missing;  // inputs that are not there, a line each with the command that makes them
  std::string folder() const { return output_dir + "/" + name; }
};

// Reads the sweep file and every arm's recipe. Error(usage) with every error, a line each; missing inputs are only listed. `only`: the
// arms to run; empty: all.
Sweep open_sweep(const std::string& file, const std::vector<std::string>& command_line, const std::vector<std::string>& only = {});

}  // namespace moba::sweep
