#include "src/sweep/predict.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>

#include "src/train/checkpoint_folders.h"
#include "src/train/console.h"
#include "src/train/host.h"
#include "src/train/resolve.h"

namespace moba::sweep {
namespace {

RunCost cost_of(const Recipe& recipe) {
  Recipe resolved = recipe;
  resolve_vocabulary(resolved);
  validate(resolved.model);
  resolve_micro_batch(resolved);
  const ResolvedPrecision precision = resolve_precision(resolved);
  return predict_cost(resolved, precision.dtype);
}

std::string size_text(int64_t bytes) {
  constexpr double kMebi = 1048576, kSmall = 102.4;  // MiB
  const double mebi = static_cast<double>(bytes) / kMebi;
  return mebi < kSmall ? fmt::format("{:.1f} MiB", mebi) : format_gib(static_cast<double>(bytes));
}

// Kernel file systems such as /proc have no room at all, which is no full disk.
void check_holds_files(const std::string& folder) {
  std::error_code error;
  std::filesystem::path place = std::filesystem::absolute(folder, error);
  while (!std::filesystem::exists(place, error) && place.has_parent_path() && place != place.parent_path()) place = place.parent_path();
  const std::filesystem::space_info space = std::filesystem::space(place, error);
  if (error || space.capacity == 0)
    throw Error(fmt::format("{}: {} can't hold files; choose another place by run.output_dir=DIR", folder, place.string()), ExitCode::io);
}

std::string state_text(const RunStatus& s, bool asked) {
  if (!asked && s.state != RunState::finished) return "not asked for";
  switch (s.state) {
    case RunState::absent: return "to do";
    case RunState::partial: return fmt::format("{}/{}", s.step, s.total_steps);
    case RunState::finished: return "done";
  }
  return "";
}

}  // namespace

Prediction predict(const Sweep& sweep, int jobs) {
  Prediction out;
  std::map<std::string, RunCost> by_arm;  // seeds of an arm cost the same
  for (const ArmRun& run : sweep.runs) {
    auto known = by_arm.find(run.arm.name);
    if (known == by_arm.end()) known = by_arm.emplace(run.arm.name, cost_of(run.recipe)).first;
    out.costs.push_back(known->second);
  }
  // One machine, one peak: whatever else runs here disturbs single measurements.
  double peak = 0;
  for (const RunCost& cost : out.costs) peak = std::max(peak, cost.peak_gflops);
  for (RunCost& cost : out.costs) {
    cost.seconds *= cost.peak_gflops / peak;
    cost.peak_gflops = peak;
  }
  refresh_statuses(sweep, jobs, out);
  return out;
}

void refresh_statuses(const Sweep& sweep, int jobs, Prediction& p) {
  p.statuses.clear();
  p.seconds_left.clear();
  p.seconds = 0;
  p.disk_bytes = 0;
  std::vector<int64_t> memory;
  for (size_t i = 0; i < sweep.runs.size(); ++i) {
    const RunCost& cost = p.costs[i];
    const RunStatus status = run_status(sweep.runs[i].recipe);
    const bool finished = status.state == RunState::finished, to_do = !finished && sweep.runs[i].asked;
    const double done = static_cast<double>(status.step) / static_cast<double>(std::max<int64_t>(1, cost.steps));
    p.statuses.push_back(status);
    p.seconds_left.push_back(to_do ? (1 - done) * cost.seconds : 0);
    p.seconds += p.seconds_left.back();
    if (!to_do) continue;
    const auto there = static_cast<int64_t>(step_folders(sweep.runs[i].folder() + "/checkpoints").size());
    p.disk_bytes += std::max<int64_t>(0, cost.kept_checkpoints - there) * cost.checkpoint_bytes;
    memory.push_back(cost.memory_bytes);
  }
  std::sort(memory.rbegin(), memory.rend());
  memory.resize(std::min(memory.size(), static_cast<size_t>(jobs)));
  p.memory_bytes = std::accumulate(memory.begin(), memory.end(), int64_t{0});
}

std::string prediction_table(const Sweep& sweep, const Prediction& p, int jobs) {
  size_t width = 4;
  for (const ArmRun& run : sweep.runs) width = std::max(width, run.name.size());
  std::string out = fmt::format("{}: {} arms x {} seeds = {} runs in {}\n", sweep.file.file, sweep.file.arms.size(),
                                sweep.file.seeds.size(), sweep.runs.size(), sweep.folder());
  out += fmt::format("  {:<{}}  {:>9} {:>9} {:>10} {:>10} {:>9} {:>9}  {}\n", "run", width, "params", "tokens", "6ND", "with attn",
                     "memory", "time", "state");
  for (size_t i = 0; i < sweep.runs.size(); ++i) {
    const RunCost& c = p.costs[i];
    out += fmt::format("  {:<{}}  {:>9} {:>9} {:>10.2e} {:>10.2e} {:>9} {:>9}  {}\n", sweep.runs[i].name, width,
                       format_count(static_cast<double>(c.parameters - c.embedding_parameters)),
                       format_count(static_cast<double>(c.tokens)), c.flops_6nd, c.flops, size_text(c.memory_bytes),
                       format_duration(c.seconds), state_text(p.statuses[i], sweep.runs[i].asked));
  }
  out += fmt::format(
      "  params: without embeddings; 6ND, with attn: FLOPs of the run; time: at {:.0f} % of the measured peak of {:.0f} GFLOP/s\n",
      100 * kAssumedMfu, p.costs.empty() ? 0 : p.costs.front().peak_gflops);
  out += fmt::format("  left to do: {} predicted ({} at a time, threads shared); disk {} (free: {}); memory {} (machine: {})\n",
                     format_duration(p.seconds), jobs, size_text(p.disk_bytes), size_text(free_disk_bytes(sweep.folder())),
                     size_text(p.memory_bytes), size_text(total_memory_bytes()));
  return out;
}

void check_resources(const Sweep& sweep, const Prediction& p, int jobs) {
  check_holds_files(sweep.folder());
  const int64_t free = free_disk_bytes(sweep.folder());
  if (p.disk_bytes > free)
    throw Error(fmt::format("{}: checkpoints of this sweep need {}, and {} are free; set checkpoint.keep_last=1, or choose another disk by "
                            "run.output_dir=DIR",
                            sweep.folder(), size_text(p.disk_bytes), size_text(free)),
                ExitCode::io);
  MOBA_CHECK(jobs == 1 || p.memory_bytes <= total_memory_bytes(),
             "--jobs {}: that many runs need {} of memory together, the machine has {}; take fewer", jobs, size_text(p.memory_bytes),
             size_text(total_memory_bytes()));
}

}  // namespace moba::sweep
