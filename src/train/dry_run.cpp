#include "src/train/dry_run.h"

#include <bit>
#include <functional>

#include "kernels/common/bench.h"
#include "kernels/common/threads.h"
#include "src/train/checkpoint.h"
#include "src/train/console.h"
#include "src/train/data_stream.h"
#include "src/train/host.h"
#include "src/train/init_from.h"
#include "src/train/resolve.h"
#include "src/train/resume.h"
#include "src/train/run_plan.h"
#include "src/train/training_memory.h"
#include "src/train/validation.h"

namespace moba {
namespace {

constexpr double kPeakSeconds = 0.2;
constexpr double kLongRunSeconds = 7 * 86400.0;

std::string pad(const std::string& name, const std::string& value) { return fmt::format("  {:<26} {}\n", name, value); }

std::string report(const Recipe& r, const RunCost& c, const std::string& precision) {
  const auto count = [](int64_t n) { return format_count(static_cast<double>(n)); };
  std::string out = fmt::format("{} (run folder {})\n", r.file, r.folder());
  out +=
      pad("parameters", fmt::format("{} ({}; without embeddings {} = {})", count(c.parameters), format_thousands(c.parameters),
                                    count(c.parameters - c.embedding_parameters), format_thousands(c.parameters - c.embedding_parameters)));
  out += pad("tokens",
             fmt::format("{} ({} steps of {})", count(c.tokens), format_thousands(c.steps), format_thousands(r.global_batch_tokens)));
  out += pad("FLOPs, 6ND", fmt::format("{:.3e}", c.flops_6nd));
  out += pad("FLOPs, with attention", fmt::format("{:.3e}", c.flops));
  out += pad("precision", precision);
  out += pad("micro-batch", fmt::format("{} sequences, {} passes a step", r.micro_batch_size,
                                        r.global_batch_tokens / (r.micro_batch_size * r.stages.front().sequence_length)));
  if (r.lanes > 1)
    out += pad("lanes", fmt::format("{}, {} of a rank, which holds {} sets of gradients at most", r.lanes, r.lanes / r.data_ranks,
                                    std::bit_width(static_cast<uint64_t>(r.lanes / r.data_ranks))));
  if (r.data_ranks > 1)
    out += pad("sent by a rank, each step", fmt::format("{:.1f} MB (gradients{})", static_cast<double>(c.sent_bytes) / 1e6,
                                                        r.zero_stage > 0 ? ", updated weights" : ""));
  out += pad(r.data_ranks > 1 ? "memory of a rank, peak" : "memory, predicted peak",
             fmt::format("{} (machine: {})", format_gib(static_cast<double>(c.memory_bytes)),
                         format_gib(static_cast<double>(total_memory_bytes()))));
  out += pad(
      "disk for checkpoints",
      fmt::format("{} ({} of {}; free: {})", format_gib(static_cast<double>(c.checkpoint_bytes * c.kept_checkpoints)), c.kept_checkpoints,
                  format_gib(static_cast<double>(c.checkpoint_bytes)), format_gib(static_cast<double>(free_disk_bytes(r.folder())))));
  out += pad("time, predicted", fmt::format("{} (measured peak {:.0f} GFLOP/s x an assumed MFU of {:.0f} %)", format_duration(c.seconds),
                                            c.peak_gflops, 100 * kAssumedMfu));
  return out;
}

// The small-scale twin of a paper-size recipe.
std::string mini_recipe(const Recipe& recipe) {
  const std::string name = recipe.file.substr(recipe.file.rfind('/') + 1);
  const std::string folder = recipe.file.substr(0, recipe.file.size() - name.size());
  const std::pair<const char*, const char*> twins[] = {
      {"scaling_568m.yaml", "scaling_mini_1.yaml"},    {"scaling_822m.yaml", "scaling_mini_2.yaml"},
      {"scaling_1.1b.yaml", "scaling_mini_3.yaml"},    {"scaling_1.5b.yaml", "scaling_mini_4.yaml"},
      {"scaling_2.1b.yaml", "scaling_mini_5.yaml"},    {"hybrid_transition.yaml", "hybrid_transition_mini.yaml"},
      {"activation.yaml", "activation_mini.yaml"},     {"sft_hybrid.yaml", "sft_hybrid_mini.yaml"},
      {"longcontext_8b.yaml", "longcontext_mini.yaml"}};
  for (const auto& [large, mini] : twins)
    if (name == large) return folder + mini;
  return "recipes/quickstart.yaml";
}

// Calls use(plan of a step, number of steps like it). Attention changes only with stages and schedule, so a few hundred points of
// the run describe it.
void for_parts_of_run(const Recipe& recipe, const RunPlan& plan, const std::function<void(const StepPlan&, int64_t)>& use) {
  const int64_t steps = plan.total_steps(), stride = std::max<int64_t>(1, steps / 512);
  for (int64_t step = 0; step < steps; step += stride) {
    Progress at{step, step * recipe.global_batch_tokens, 0, 0};
    plan.enter_stage(at);
    use(plan.at(at), std::min(stride, steps - step));
  }
}

double planned_flops(const Recipe& recipe, const RunPlan& plan) {
  double flops = 0;
  for_parts_of_run(recipe, plan, [&](const StepPlan& step, int64_t steps) {
    flops += step.flops_per_token * static_cast<double>(recipe.global_batch_tokens) * static_cast<double>(steps);
  });
  return flops;
}

// What a rank sends a step, on average over ranks. Halving and doubling: (P - 1) / P of all gradients to add them up, as much again
// to hand the sums to everyone; with ZeRO-1 the parts of the sums go to their owners only, 1 / P as much, and the updated compute
// copies from their owners to everyone, in parts as well.
int64_t sent_bytes_per_step(const Recipe& r, DType dtype, int64_t parameters) {
  const int64_t sums = parameters * 4 * (r.data_ranks - 1) / r.data_ranks;
  const int64_t copies = parameters * static_cast<int64_t>(dtype_size(dtype)) * (r.data_ranks - 1) / r.data_ranks;
  return r.zero_stage > 0 ? (sums + copies) * (r.data_ranks + 1) / r.data_ranks : 2 * sums;
}

}  // namespace

RunCost predict_cost(const Recipe& recipe, DType dtype) {
  const RunPlan plan(recipe, {});
  RunCost cost;
  cost.parameters = parameter_count(recipe.model);
  cost.embedding_parameters = embedding_parameter_count(recipe.model);
  cost.steps = plan.total_steps();
  cost.tokens = plan.total_tokens();
  cost.flops_6nd = 6.0 * static_cast<double>(cost.parameters - cost.embedding_parameters) * static_cast<double>(cost.tokens);
  for_parts_of_run(recipe, plan, [&](const StepPlan& step_plan, int64_t) {
    cost.memory_bytes = std::max(cost.memory_bytes, predicted_training_memory(recipe, dtype, step_plan));
  });
  cost.sent_bytes = sent_bytes_per_step(recipe, dtype, cost.parameters);
  cost.checkpoint_bytes = 3 * 4 * cost.parameters;  // masters and two moments, fp32
  const int64_t written = recipe.checkpoint_interval > 0 ? (cost.steps + recipe.checkpoint_interval - 1) / recipe.checkpoint_interval : 0;
  // A new one is complete before the oldest goes.
  cost.kept_checkpoints = recipe.keep_last > 0 ? std::min(written, recipe.keep_last + 1) : written;
  cost.peak_gflops = measure_peak_gflops(dtype, num_threads(), kPeakSeconds);
  cost.flops = planned_flops(recipe, plan);
  cost.seconds = cost.flops / (cost.peak_gflops * 1e9 * kAssumedMfu);
  return cost;
}

double predicted_seconds(const Recipe& recipe, const RunPlan& plan, double peak_gflops) {
  return planned_flops(recipe, plan) / (peak_gflops * 1e9 * kAssumedMfu);
}

std::string long_run_warning(const Recipe& recipe, double seconds) {
  if (seconds <= kLongRunSeconds) return "";
  return fmt::format("this run is predicted to take {} on this machine; {} is the same kind of experiment at small scale",
                     format_duration(seconds), mini_recipe(recipe));
}

ExitCode dry_run(Recipe recipe, const TrainOptions& options) {
  resolve_device(options.device);
  const bool goes_on = may_resume(recipe, options.resume);
  const std::vector<std::string> missing = missing_inputs(recipe, goes_on);
  resolve_vocabulary(recipe);
  validate(recipe.model);
  const bool automatic = recipe.micro_batch_size == 0;
  resolve_micro_batch(recipe);
  resolve_lanes(recipe);
  const ResolvedPrecision precision = resolve_precision(recipe);
  const RunCost cost = predict_cost(recipe, precision.dtype);
  std::fputs(report(recipe, cost, precision.why).c_str(), stdout);
  if (automatic) std::printf("  micro_batch_size: auto gives %lld here\n", static_cast<long long>(recipe.micro_batch_size));
  if (const std::string warning = long_run_warning(recipe, cost.seconds); !warning.empty()) std::printf("%s\n", warning.c_str());
  for (const std::string& line : missing) std::printf("%s\n", line.c_str());
  if (!missing.empty()) return ExitCode::usage;
  DataStream{recipe};  // opens the training files and packs them
  check_validation(recipe);
  if (!goes_on && !recipe.init_from.empty())
    check_init_from(recipe, resolve_checkpoint(recipe.init_from), data_fingerprint(recipe).at("tokenizer"),
                    [](const std::string& line) { std::printf("%s\n", line.c_str()); });
  return ExitCode::done;
}

}  // namespace moba
