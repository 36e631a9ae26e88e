#include "src/sweep/predict.h"

#include <algorithm>
#include <map>
#include <numeric>

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
    p.disk_bytes += cost.kept_checkpoints * cost.checkpoint_bytes;
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
                       format_count(static_cast<double>(c.tokens)), c.flops_6nd, c.flops, format_gib(static_cast<double>(c.memory_bytes)),
                       format_duration(c.seconds), state_text(p.statuses[i], sweep.runs[i].asked));
  }
  out += fmt::format(
      "  params: without embeddings; 6ND, with attn: FLOPs of the run; time: at {:.0f} % of the measured peak of {:.0f} GFLOP/s\n",
      100 * kAssumedMfu, p.costs.empty() ? 0 : p.costs.front().peak_gflops);
  out += fmt::format("  left to do: {} predicted ({} at a time, threads shared); disk {} (free: {}); memory {} (machine: {})\n",
                     format_duration(p.seconds), jobs, format_gib(static_cast<double>(p.disk_bytes)),
                     format_gib(static_cast<double>(free_disk_bytes(sweep.folder()))), format_gib(static_cast<double>(p.memory_bytes)),
                     format_gib(static_cast<double>(total_memory_bytes())));
  return out;
}

void check_resources(const Sweep& sweep, const Prediction& p, int jobs) {
  const int64_t free = free_disk_bytes(sweep.folder());
  if (p.disk_bytes > free)
    throw Error(fmt::format("{}: checkpoints of this sweep need {}, and {} are free; set checkpoint.keep_last=1, or choose another disk by "
                            "run.output_dir=DIR",
                            sweep.folder(), format_gib(static_cast<double>(p.disk_bytes)), format_gib(static_cast<double>(free))),
                ExitCode::io);
  MOBA_CHECK(jobs == 1 || p.memory_bytes <= total_memory_bytes(),
             "--jobs {}: that many runs need {} of memory together, the machine has {}; take fewer", jobs,
             format_gib(static_cast<double>(p.memory_bytes)), format_gib(static_cast<double>(total_memory_bytes())));
}

}  // namespace moba::sweep
