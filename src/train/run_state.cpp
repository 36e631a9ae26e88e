#include "src/train/run_state.h"

#include <filesystem>

#include "kernels/common/bench.h"
#include "kernels/common/threads.h"
#include "src/interop/hf_config.h"
#include "src/train/checkpoint.h"
#include "src/train/dry_run.h"
#include "src/train/host.h"
#include "src/train/resolve.h"
#include "src/train/resume.h"
#include "src/train/run_folder.h"

namespace moba {
namespace {

constexpr double kPeakSeconds = 0.2;

using Say = std::function<void(const std::string&)>;

// The micro-batch that `auto` once gave stays for the whole run, also on another machine.
void keep_micro_batch(Recipe& recipe, const nlohmann::json& saved) {
  if (recipe.micro_batch_size > 0 || !saved.contains("train.micro_batch_size")) return;
  const int64_t before = std::stoll(saved.at("train.micro_batch_size").get<std::string>());
  for (const StageRecipe& stage : recipe.stages)
    if (recipe.global_batch_tokens / stage.sequence_length % before != 0) return;
  recipe.micro_batch_size = before;
  set_path(recipe.tree, "train.micro_batch_size", yaml_scalar(std::to_string(before)), "checkpoint");
}

void read_tokenizer(RunState& run) {
  const DatasetInfo info = TokenDataset(run.recipe.stages.front().sources.front().path).info();
  run.tokenizer_json = info.tokenizer_json;
  run.bos_token_id = info.bos_token_id;
  run.eos_token_id = info.eos_token_id;
}

void build_model(RunState& run, DType dtype, Device device, const std::optional<std::string>& checkpoint) {
  run.model = std::make_unique<Transformer>(run.recipe.model, dtype, run.recipe.seed, device);
  run.parameters = optimizer_parameters(*run.model);
  run.optimizer = make_optimizer(run.recipe.optimizer, run.parameters);
  if (checkpoint)
    load_checkpoint(*checkpoint, *run.model, run.optimizer.get());
  else if (!run.recipe.init_from.empty())
    load_checked_weights(resolve_checkpoint(run.recipe.init_from), *run.model);
}

nlohmann::ordered_json description(const RunState& run, const std::optional<std::string>& checkpoint) {
  nlohmann::ordered_json out = {
      {"precision", run.precision}, {"peak_gflops", run.peak_gflops},          {"parameters", parameter_count(run.recipe.model)},
      {"data", run.fingerprint},    {"resumed_from", checkpoint.value_or("")}, {"start_step", run.progress.step}};
  if (!run.recipe.init_from.empty())
    out["init_from"] = {{"path", run.recipe.init_from}, {"hash", weights_hash(resolve_checkpoint(run.recipe.init_from))}};
  return out;
}

void greet(const RunState& run, const std::optional<std::string>& checkpoint, const Say& say) {
  const Recipe& r = run.recipe;
  say(fmt::format("run {} in {}: {} parameters ({} without embeddings), {} steps of {} tokens", r.name, r.folder(),
                  format_count(static_cast<double>(parameter_count(r.model))),
                  format_count(static_cast<double>(parameter_count(r.model) - embedding_parameter_count(r.model))), run.plan->total_steps(),
                  r.global_batch_tokens));
  say(fmt::format("{}, {} threads, {} kernels; compute in {}; micro-batch {} x {} tokens", cpu_name(), num_threads(),
                  kernels::isa_name(kernels::active_isa()), run.precision, r.micro_batch_size, r.stages.front().sequence_length));
  if (checkpoint)
    say(fmt::format("resuming at step {} from {}", run.progress.step, *checkpoint));
  else if (const std::string warning = long_run_warning(r, predicted_seconds(r, *run.plan, run.peak_gflops)); !warning.empty())
    say(warning);
}

}  // namespace

RunState open_run(Recipe recipe, const TrainOptions& options, Console& console) {
  const Say say = [&console](const std::string& text) { console.say(text); };
  const Device device = resolve_device(options.device);
  RunState run;
  run.recipe = std::move(recipe);
  resolve_vocabulary(run.recipe);
  validate(run.recipe.model);
  const std::optional<std::string> checkpoint = checkpoint_to_resume(run.recipe, options.resume, say);
  const nlohmann::json state = checkpoint ? read_trainer_state(*checkpoint) : nlohmann::json();
  if (checkpoint) keep_micro_batch(run.recipe, state.at("settings"));
  resolve_micro_batch(run.recipe);
  const ResolvedPrecision precision = resolve_precision(run.recipe);
  run.precision = precision.why;
  run.data = std::make_unique<DataStream>(run.recipe);
  for (const std::string& path : run.recipe.validation)
    TokenDataset{path};  // opened once, so that damage shows now and not at the first evaluation
  run.fingerprint = data_fingerprint(run.recipe);
  run.settings = recipe_settings(run.recipe);
  read_tokenizer(run);
  if (checkpoint) {
    check_resumable(state.at("settings"), state.at("data"), run.settings, run.fingerprint, *checkpoint, say);
    run.progress = progress_from_json(state.at("progress"));
    run.evaluation_due = state.value("evaluation_due", false);
    run.not_finite_in_a_row = state.value("not_finite_in_a_row", int64_t{0});
  }
  run.plan = std::make_unique<RunPlan>(run.recipe, run.progress);
  if (run.plan->finished(run.progress) && !run.evaluation_due) {
    say(fmt::format("{} is finished: step {} of {}; nothing to do", run.recipe.folder(), run.progress.step, run.plan->total_steps()));
    return run;
  }
  build_model(run, precision.dtype, device, checkpoint);
  run.peak_gflops = measure_peak_gflops(precision.dtype, num_threads(), kPeakSeconds);

  const std::string folder = run.recipe.folder();
  make_run_folder(folder);
  if (!checkpoint) clear_run_folder(folder);
  console.open_log(folder + "/train.log");
  describe_run(run.recipe, options.command_line, description(run, checkpoint));
  run.metrics = std::make_unique<MetricsLog>(folder, run.progress.step, run.recipe.tensorboard, run.evaluation_due);
  greet(run, checkpoint, say);
  return run;
}

void save_run(RunState& run, Console& console) {
  const Recipe& r = run.recipe;
  ModelDescription description;
  description.model = r.model;
  // The scaling of the stage that trained these weights is what a reader of them needs.
  description.model.rope_scaling = r.stages.at(static_cast<size_t>(run.progress.stage)).rope_scaling;
  description.attention = frozen_plan(r.attention, r.model.num_hidden_layers, run.progress.tokens, run.plan->total_tokens());
  description.bos_token_id = run.bos_token_id;
  description.eos_token_id = run.eos_token_id;
  const nlohmann::json state = {{"progress", to_json(run.progress)},
                                {"evaluation_due", run.evaluation_due},
                                {"not_finite_in_a_row", run.not_finite_in_a_row},
                                {"settings", run.settings},
                                {"data", run.fingerprint}};
  const CheckpointContents contents{run.progress.step, *run.model, run.optimizer.get(), state, hf_config(description), run.tokenizer_json};
  console.say("saved " + save_checkpoint(r.folder(), contents, static_cast<int>(r.keep_last)));
}

}  // namespace moba
