#include "src/train/run_state.h"

#include <filesystem>

#include "kernels/common/bench.h"
#include "kernels/common/threads.h"
#include "src/distributed/agree.h"
#include "src/interop/hf_config.h"
#include "src/train/checkpoint.h"
#include "src/train/dry_run.h"
#include "src/train/host.h"
#include "src/train/init_from.h"
#include "src/train/resolve.h"
#include "src/train/resume.h"
#include "src/train/run_folder.h"
#include "src/train/validation.h"

namespace moba {
namespace {

constexpr double kPeakSeconds = 0.2;
constexpr double kLockPatienceSeconds = 10;

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

// With ZeRO-1 masters of other ranks' parameters are theirs to keep. (fp32 models compute with the masters themselves.)
void drop_foreign_masters(Transformer& model, const Communicator& ranks) {
  const std::vector<int> owners = DataParallel::owners_of(optimizer_parameters(model), ranks.size());
  for (size_t i = 0; i < owners.size(); ++i) {
    Parameter& p = model.parameters()[i];
    if (owners[i] != ranks.rank() && p.master.storage() != p.value.value().storage()) p.master = Tensor();
  }
}

void load_start_weights(RunState& run, const Say& say) {
  const std::string dir = resolve_checkpoint(run.recipe.init_from);
  check_weights_fit(dir, *run.model);
  check_init_from(run.recipe, dir, run.fingerprint.at("tokenizer"), say);
  load_checked_weights(dir, *run.model);
}

void build_model(RunState& run, DType dtype, Device device, const std::optional<std::string>& checkpoint, const Say& say) {
  const Recipe& r = run.recipe;
  Communicator& ranks = run.world->communicator();
  together(ranks, "weights", [&] {
    const bool loaded = checkpoint || !r.init_from.empty();
    run.model = std::make_unique<Transformer>(r.model, dtype, loaded ? std::nullopt : std::optional(r.seed), device);
    if (checkpoint)
      load_weights(*checkpoint, *run.model);
    else if (!r.init_from.empty())
      load_start_weights(run, say);
    if (r.zero_stage > 0) drop_foreign_masters(*run.model, ranks);
  });
  run.parameters = optimizer_parameters(*run.model);
  run.parallel = std::make_unique<DataParallel>(ranks, r.lanes, r.zero_stage, run.parameters);
  run.optimizer = run.parallel->make_optimizer(r.optimizer);
  if (!checkpoint) return;
  const auto mine = static_cast<int64_t>(run.optimizer->state().size());
  const int64_t tensors = run.parallel->sharded() ? run.parallel->sum(mine, "optimizer tensors") : mine;
  together(ranks, "optimizer state", [&] { load_optimizer(*checkpoint, *run.optimizer, tensors); });
}

// Peak of all ranks together, measured at the same time.
double peak_of_all(Communicator& ranks, DType dtype) {
  const Tensor peak = Tensor::from(std::vector<double>{measure_peak_gflops(dtype, num_threads(), kPeakSeconds)}, {1});
  ranks.all_reduce(peak, ReduceOp::sum, "peak").wait();
  return peak.item();
}

// Ranks must compute in the same precision on the same data: what differs between machines shows here.
void check_alike(Communicator& ranks, const std::string& mine, const char* what) {
  const std::vector<std::string> all = ranks.all_gather_strings(mine, what);
  for (size_t rank = 1; rank < all.size(); ++rank)
    if (all[rank] != all[0])
      throw SharedError(fmt::format("{} of rank {} differs from rank 0's: {} against {}", what, rank, all[rank], all[0]));
}

nlohmann::ordered_json description(const RunState& run, const std::optional<std::string>& checkpoint) {
  nlohmann::ordered_json out = {
      {"precision", run.precision}, {"peak_gflops", run.peak_gflops},          {"parameters", parameter_count(run.recipe.model)},
      {"data", run.fingerprint},    {"resumed_from", checkpoint.value_or("")}, {"start_step", run.progress.step}};
  if (!run.init_from.is_null()) out["init_from"] = run.init_from;
  return out;
}

void greet(const RunState& run, const std::optional<std::string>& checkpoint, const Say& say) {
  const Recipe& r = run.recipe;
  say(fmt::format("run {} in {}: {} parameters ({} without embeddings), {} steps of {} tokens", r.name, r.folder(),
                  format_count(static_cast<double>(parameter_count(r.model))),
                  format_count(static_cast<double>(parameter_count(r.model) - embedding_parameter_count(r.model))), run.plan->total_steps(),
                  r.global_batch_tokens));
  if (run.world->communicator().size() > 1)
    say(fmt::format("{} ranks ({}), {} lanes, ZeRO stage {}", run.world->communicator().size(), run.world->communicator().backend(),
                    r.lanes, r.zero_stage));
  say(fmt::format("{}, {} threads, {} kernels; compute in {}; micro-batch {} x {} tokens", cpu_name(), num_threads(),
                  kernels::isa_name(kernels::active_isa()), run.precision, r.micro_batch_size, r.stages.front().sequence_length));
  if (checkpoint)
    say(fmt::format("resuming at step {} from {}", run.progress.step, *checkpoint));
  else if (const std::string warning = long_run_warning(r, predicted_seconds(r, *run.plan, run.peak_gflops)); !warning.empty())
    say(warning);
}

// Rank 0's. A run whose launcher was killed notices within a second and ends, so a start right after it waits.
void lock_folder(RunState& run) {
  const std::string folder = run.recipe.folder();
  if (run.lock || !std::filesystem::exists(folder)) return;
  const double patience = std::min(kLockPatienceSeconds, run.recipe.time_limit / 2);
  run.lock = std::make_unique<FolderLock>(folder, FolderLockOptions{.program = "moba-train", .patience_seconds = patience});
}

}  // namespace

RunState open_run(Recipe recipe, const TrainOptions& options, World& world, Console& console) {
  const Say say = [&console](const std::string& text) { console.say(text); };
  Communicator& ranks = world.communicator();
  RunState run;
  run.world = &world;
  run.recipe = std::move(recipe);
  Device device;
  together(ranks, "recipe", [&] {
    device = resolve_device(options.device);
    resolve_vocabulary(run.recipe);
    validate(run.recipe.model);
  });
  const std::string found = from_root(ranks, "checkpoint to resume", [&] {
    if (options.resume != "never") lock_folder(run);
    return checkpoint_to_resume(run.recipe, options.resume, say).value_or("");
  });
  const std::optional<std::string> checkpoint = found.empty() ? std::nullopt : std::optional(found);
  ResolvedPrecision precision;
  together(ranks, "data", [&] {
    const std::vector<std::string> missing = missing_inputs(run.recipe, checkpoint.has_value());
    if (!missing.empty()) throw Error(fmt::format("{}", fmt::join(missing, "\n")));
    const nlohmann::json state = checkpoint ? read_trainer_state(*checkpoint) : nlohmann::json();
    if (checkpoint) keep_micro_batch(run.recipe, state.at("settings"));
    resolve_micro_batch(run.recipe);
    resolve_lanes(run.recipe);
    precision = resolve_precision(run.recipe);
    run.precision = precision.why;
    run.data = std::make_unique<DataStream>(run.recipe);
    check_validation(run.recipe);
    run.fingerprint = data_fingerprint(run.recipe);
    run.settings = recipe_settings(run.recipe);
    read_tokenizer(run);
    if (checkpoint) {
      check_resumable(state, run.recipe, run.settings, run.fingerprint, *checkpoint, say);
      run.progress = progress_from_json(state.at("progress"));
      run.evaluation_due = state.value("evaluation_due", false);
      run.not_finite_in_a_row = state.value("not_finite_in_a_row", int64_t{0});
      run.init_from = state.value("init_from", nlohmann::json());
    }
  });
  if (run.evaluation_due)
    run.evaluation_due =
        from_root(ranks, "evaluation due", [&] { return is_evaluated(run.recipe, *checkpoint, run.progress.step) ? "" : "yes"; }) == "yes";
  check_alike(ranks, dtype_name(precision.dtype), "precision");
  check_alike(ranks, run.fingerprint.dump(), "data");
  run.plan = std::make_unique<RunPlan>(run.recipe, run.progress);
  if (run.plan->finished(run.progress) && !run.evaluation_due) {
    say(fmt::format("{} is finished: step {} of {}; nothing to do", run.recipe.folder(), run.progress.step, run.plan->total_steps()));
    return run;
  }
  build_model(run, precision.dtype, device, checkpoint, say);
  run.peak_gflops = peak_of_all(ranks, precision.dtype);
  const std::string folder = run.recipe.folder();
  const std::string went_back = from_root(ranks, "run folder", [&] {
    make_run_folder(folder);
    if (!run.lock) {  // the folder was not there before, so what it holds now is another's
      lock_folder(run);
      MOBA_CHECK(is_unused(folder), "{}: another moba-train has worked there since this one started; start again", folder);
    }
    if (!checkpoint) clear_run_folder(folder);
    console.open_log(folder + "/train.log");
    if (!checkpoint && !run.recipe.init_from.empty())
      run.init_from = {{"path", run.recipe.init_from}, {"hash", weights_hash(resolve_checkpoint(run.recipe.init_from))}};
    describe_run(run.recipe, options.command_line, description(run, checkpoint));
    return checkpoint && !is_newest_checkpoint(run.recipe, *checkpoint) ? "yes" : "";
  });
  // Later steps belong to a history that the user left; were they there after a kill, `auto` would go on from them. Metrics are
  // cut after this, so that folders and lines never tell of different histories.
  if (!went_back.empty()) {
    say(fmt::format("{} becomes the newest checkpoint of {}; later ones are removed", *checkpoint, folder));
    save_run(run, console);
  }
  from_root(ranks, "metrics", [&] {
    run.metrics = std::make_unique<MetricsLog>(folder, run.progress.step, run.recipe.tensorboard, run.evaluation_due);
    return "";
  });
  greet(run, checkpoint, say);
  return run;
}

void save_run(RunState& run, Console& console) {
  const Recipe& r = run.recipe;
  // A run that goes on from this checkpoint keeps the lines up to its step, so they must outlast a power cut as it does.
  if (run.metrics) run.metrics->sync();
  ModelDescription description;
  description.model = r.model;
  // The scaling of the stage that trained these weights is what a reader of them needs.
  description.model.rope_scaling = r.stages.at(static_cast<size_t>(run.progress.stage)).rope_scaling;
  description.attention = frozen_plan(r.attention, r.model.num_hidden_layers, run.progress.tokens, run.plan->total_tokens());
  description.bos_token_id = run.bos_token_id;
  description.eos_token_id = run.eos_token_id;
  nlohmann::json state = {{"progress", to_json(run.progress)},
                          {"evaluation_due", run.evaluation_due},
                          {"not_finite_in_a_row", run.not_finite_in_a_row},
                          {"settings", run.settings},
                          {"data", run.fingerprint}};
  if (!run.init_from.is_null()) state["init_from"] = run.init_from;
  const CheckpointContents contents{run.progress.step,      *run.model,         run.optimizer.get(),        state,
                                    hf_config(description), run.tokenizer_json, &run.world->communicator(), run.parallel->owners()};
  console.say("saved " + save_checkpoint(r.folder(), contents, static_cast<int>(r.keep_last)));
}

}  // namespace moba
