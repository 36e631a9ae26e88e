#include "src/sweep/arm_run.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "kernels/common/check.h"
#include "src/train/checkpoint.h"
#include "src/train/data_stream.h"
#include "src/train/resume.h"

namespace moba::sweep {
namespace {

RecipeOptions recipe_options(const Arm& arm, const std::vector<std::string>& run_keys) {
  RecipeOptions options;
  for (const Override& o : arm.overrides) options.overrides.push_back(o.argument());
  options.overrides.insert(options.overrides.end(), run_keys.begin(), run_keys.end());
  options.attention = arm.attention;
  options.hybrid_layers = arm.hybrid_layers;
  options.allow_missing_inputs = true;
  return options;
}

// The recipe's reader knows overrides as arguments of a command line; in a sweep each has a place of its own.
std::string with_places(std::string line, const Arm& arm) {
  for (const Override& o : arm.overrides) {
    const std::string as_argument = fmt::format("command line '{}'", o.argument());
    if (o.where.starts_with("command line")) continue;
    for (size_t at; (at = line.find(as_argument)) != std::string::npos;) line.replace(at, as_argument.size(), o.where);
  }
  return line;
}

void add_errors(const std::string& text, const Arm& arm, std::vector<std::string>& errors) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = with_places(text.substr(begin, end - begin), arm);
    constexpr std::string_view kOption = "command line: --";  // attn and hybrid_layers of the arm
    if (line.starts_with(kOption)) line.erase(0, kOption.size() - 2);
    if (line.starts_with("--")) line = fmt::format("{}: arm '{}': {}", arm.where, arm.name, line);
    if (std::find(errors.begin(), errors.end(), line) == errors.end()) errors.push_back(line);  // seeds and arms repeat it
    begin = end + 1;
  }
}

std::vector<std::string> arguments(const Arm& arm, const RecipeOptions& options) {
  std::vector<std::string> out = {arm.base};
  out.insert(out.end(), options.overrides.begin(), options.overrides.end());
  if (arm.attention) out.insert(out.end(), {"--attn", *arm.attention});
  if (arm.hybrid_layers) out.insert(out.end(), {"--hybrid-layers", *arm.hybrid_layers});
  return out;
}

// Takes KEY=VALUE out of the arguments; "" if it is not there.
std::string take(std::vector<std::string>& arguments, const std::string& key) {
  std::string value;
  std::erase_if(arguments, [&](const std::string& a) {
    if (!a.starts_with(key + "=")) return false;
    value = a.substr(key.size() + 1);
    return true;
  });
  return value;
}

class Opener {
 public:
  Opener(Sweep& sweep, std::string output_dir, const std::vector<std::string>& only)
      : sweep_(sweep), output_dir_(std::move(output_dir)), only_(only) {}

  void add(const Arm& arm, uint64_t seed) {
    ArmRun run;
    run.arm = arm;
    run.seed = seed;
    run.asked = only_.empty() || std::find(only_.begin(), only_.end(), arm.name) != only_.end();
    run.name = fmt::format("{}-s{}", arm.name.empty() ? "run" : arm.name, seed);
    try {
      std::string parent = output_dir_;
      if (parent.empty()) parent = read_recipe(arm.base, recipe_options(arm, {})).output_dir;
      if (sweep_.output_dir.empty()) sweep_.output_dir = parent;
      const RecipeOptions options =
          recipe_options(arm, {"run.name=" + run.name, "run.output_dir=" + sweep_.folder(), fmt::format("run.seed={}", seed)});
      run.recipe = read_recipe(arm.base, options);
      // A layer or window that does not fit the model is found by the plan.
      const RunPlan plan(run.recipe, {});
      run.arguments = arguments(arm, options);
      finish(run);
      sweep_.runs.push_back(std::move(run));
    } catch (const Error& error) {
      add_errors(error.what(), arm, errors_);
    }
  }

  void throw_errors() const {
    if (!errors_.empty()) throw Error(fmt::format("{}", fmt::join(errors_, "\n")));
  }

 private:
  void finish(ArmRun& run) {
    const std::vector<std::string> missing = missing_inputs(run.recipe);
    const bool has_start = !run.recipe.init_from.empty(), start_missing = has_start && !std::filesystem::exists(run.recipe.init_from);
    const bool data_missing = missing.size() > (start_missing ? 1 : 0);
    for (const std::string& line : run.asked ? missing : std::vector<std::string>{}) {
      // Places in base recipes differ from arm to arm; the file that is missing is the same.
      const size_t key = line.find(": ");
      const std::string what = line.substr(key == std::string::npos ? 0 : key + 2);
      if (std::none_of(sweep_.missing.begin(), sweep_.missing.end(), [&](const std::string& known) { return known.ends_with(what); }))
        sweep_.missing.push_back(with_places(line, run.arm));
    }
    if (!data_missing) resolve_vocabulary(run.recipe);
    run.settings = recipe_settings(run.recipe);
    run.settings.erase(kOutputDir);
    if (run.recipe.model.vocab_size == 0) run.unknown.emplace_back(kVocabulary);
    if (data_missing)
      run.unknown.emplace_back(kDataContent);
    else
      run.settings[kDataContent] = data_fingerprint(run.recipe).dump();
    if (start_missing)
      run.unknown.emplace_back(kStartContent);
    else if (has_start)
      run.settings[kStartContent] = start_hash(run.recipe.init_from);
  }

  // Arms mostly start from one model, which may be large.
  const std::string& start_hash(const std::string& path) {
    std::string& hash = start_hashes_[path];
    if (hash.empty()) hash = weights_hash(resolve_checkpoint(path));
    return hash;
  }

  Sweep& sweep_;
  std::string output_dir_;
  std::vector<std::string> only_, errors_;
  std::map<std::string, std::string> start_hashes_;
};

void check_only(const std::vector<Arm>& arms, const std::vector<std::string>& only) {
  std::vector<std::string> names;
  for (const Arm& arm : arms) names.push_back(arm.name);
  for (const std::string& name : only)
    MOBA_CHECK(std::find(names.begin(), names.end(), name) != names.end(), "--only: there is no arm '{}'; arms are {}", name,
               fmt::join(names, ", "));
}

}  // namespace

Sweep open_sweep(const std::string& file, const std::vector<std::string>& command_line, const std::vector<std::string>& only) {
  std::vector<std::string> rest = command_line;
  Sweep sweep;
  sweep.name = take(rest, "run.name");
  const std::string output_dir = take(rest, "run.output_dir");
  MOBA_CHECK(take(rest, "run.seed").empty(), "run.seed: a sweep runs every arm with each of its seeds; give seeds=[1, 2]");
  sweep.file = read_sweep(file, rest);
  if (sweep.name.empty()) sweep.name = sweep.file.name;
  check_only(sweep.file.arms, only);
  Opener opener(sweep, output_dir, only);
  for (const uint64_t seed : sweep.file.seeds)
    for (const Arm& arm : sweep.file.arms) opener.add(arm, seed);
  opener.throw_errors();
  return sweep;
}

}  // namespace moba::sweep
