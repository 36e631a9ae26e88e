#include "src/sweep/run_status.h"

#include <filesystem>
#include <fstream>

#include "src/train/checkpoint_folders.h"
#include "src/train/run_plan.h"

namespace moba::sweep {
namespace {

namespace fs = std::filesystem;

constexpr std::streamoff kTailBytes = 65536;

std::vector<nlohmann::json> read_lines(const std::string& folder, std::streamoff tail) {
  std::vector<nlohmann::json> out;
  std::ifstream file(folder + "/metrics.jsonl", std::ios::binary);
  if (!file) return out;
  file.seekg(0, std::ios::end);
  const std::streamoff size = file.tellg();
  const bool cut = tail > 0 && size > tail;
  file.seekg(cut ? size - tail : 0);
  std::string line;
  if (cut) std::getline(file, line);  // most likely the end of one
  while (std::getline(file, line)) {
    nlohmann::json value = nlohmann::json::parse(line, nullptr, false);
    if (value.is_object() && value.contains("step")) out.push_back(std::move(value));
  }
  return out;
}

bool has_last_checkpoint(const std::string& folder, int64_t total_steps) {
  return fs::exists(folder + "/checkpoints/" + step_folder_name(total_steps) + "/MANIFEST.json");
}

}  // namespace

std::vector<nlohmann::json> read_metrics(const std::string& folder) { return read_lines(folder, 0); }
std::vector<nlohmann::json> recent_metrics(const std::string& folder) { return read_lines(folder, kTailBytes); }

RunStatus run_status(const Recipe& recipe) {
  RunStatus out;
  out.total_steps = RunPlan(recipe, {}).total_steps();
  const std::string folder = recipe.folder();
  bool evaluated = recipe.eval_interval == 0;
  for (const nlohmann::json& line : recent_metrics(folder)) {
    const int64_t step = line.at("step");
    out.step = step;
    if (step >= out.total_steps && line.contains("eval/loss")) evaluated = true;
    if (const auto loss = line.find("train/loss"); loss != line.end() && loss->is_number()) out.loss = *loss;
    if (const auto speed = line.find("perf/tokens_per_sec"); speed != line.end() && speed->is_number()) out.tokens_per_sec = *speed;
  }
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_empty(folder, error)) out.state = RunState::partial;
  const bool saved = recipe.checkpoint_interval == 0 || has_last_checkpoint(folder, out.total_steps);
  if (out.step >= out.total_steps && out.total_steps > 0 && evaluated && saved) out.state = RunState::finished;
  return out;
}

}  // namespace moba::sweep
