#include "src/train/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>

#include "kernels/common/threads.h"
#include "src/distributed/agree.h"
#include "src/interop/hashed_file.h"
#include "src/train/checkpoint_folders.h"
#include "src/train/evaluate.h"
#include "src/train/host.h"
#include "src/train/profile.h"
#include "src/train/run_state.h"
#include "src/train/signals.h"
#include "src/train/validation.h"

namespace moba {
namespace {

constexpr int64_t kMaxSkipsInARow = 5;

class Trainer {
 public:
  Trainer(RunState run, Console& console, int64_t profiled_steps)
      : run_(std::move(run)), console_(console), profile_(profiled_steps), saved_step_(run_.progress.step) {
    run_.parallel->set_signals([] { return Requests{SignalWatch::stop_requested(), SignalWatch::take_save_request()}; });
  }

  ExitCode loop() {
    heed(run_.parallel->agree());
    if (run_.evaluation_due && !stop_) evaluate_after(last_step_plan());
    while (!run_.plan->finished(run_.progress) && !stop_) {
      if (run_.plan->enter_stage(run_.progress)) say_stage();
      const StepPlan plan = run_.plan->at(run_.progress);
      say_attention(plan);
      const auto begin = std::chrono::steady_clock::now();
      run_.world->at(run_.progress.step + 1, "step");
      if (steps_here_ > 0) profile_.begin_step();  // the first warms up
      const SampleShare share = run_.parallel->share(run_.plan->samples_per_step(run_.progress.stage), run_.recipe.micro_batch_size);
      const std::vector<Sample> samples = run_.data->next(run_.progress, share);
      const StepSettings settings{run_.recipe.micro_batch_size, run_.recipe.grad_clip};
      const StepResult result = training_step(*run_.model, *run_.optimizer, run_.parameters, samples, plan, settings,
                                              run_.progress.step + 1, *run_.parallel, profile_.lap());
      profile_.end_step();
      heed(run_.parallel->requests());
      if (!result.updated && give_up(result)) return ExitCode::numeric;
      if (result.updated) run_.not_finite_in_a_row = 0;
      run_.plan->advance(run_.progress);
      report(plan, result, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      if (profiled_ && !profile_.due()) say_profile();
      run_.evaluation_due = due(run_.recipe.eval_interval);
      // Before the evaluation, so that one that fails or is cut off loses no step.
      if (due(run_.recipe.checkpoint_interval) || save_requested_) save();
      if (run_.evaluation_due) evaluate_after(plan);
      if (save_requested_) save();  // while it was evaluating
    }
    return finish();
  }

 private:
  bool due(int64_t interval) const { return interval > 0 && (run_.progress.step % interval == 0 || run_.plan->finished(run_.progress)); }

  void heed(const Requests& requests) {
    stop_ |= requests.stop;
    save_requested_ |= requests.save;
  }

  void save() {
    save_requested_ = false;
    run_.world->at(run_.progress.step, "save");
    save_run(run_, console_);
    saved_step_ = run_.progress.step;
  }

  // How much of the ranks' reductions ran while this rank computed.
  void say_overlap() {
    const GradientSum& sum = run_.parallel->gradients();
    if (sum.reduction_seconds() == 0) return;
    const double hidden = std::max(0.0, 1 - sum.waited_seconds() / sum.reduction_seconds());
    console_.say(fmt::format("gradient reduction: {:.2f} s in {} steps, {:.0f} % of it behind the backward pass", sum.reduction_seconds(),
                             steps_here_, 100 * hidden));
  }

  void say_profile() {
    profiled_ = false;
    if (!run_.is_root()) return;
    if (profile_.steps() == 0) return console_.say("profile: no step to look at; it leaves out the first step after a start");
    const std::string path = run_.recipe.folder() + "/profile.json";
    write_hashed_file(path, profile_.chrome_trace());
    console_.say(profile_.table(run_.peak_gflops));
    console_.say("trace: " + path + " (open it in chrome://tracing or ui.perfetto.dev)");
  }

  ExitCode finish() {
    say_overlap();
    if (profiled_) say_profile();
    if (!stop_ || (run_.plan->finished(run_.progress) && !run_.evaluation_due)) {
      console_.say(fmt::format("done: {} steps, {} tokens in {}", run_.progress.step,
                               format_count(static_cast<double>(run_.progress.tokens)), run_.recipe.folder()));
      return ExitCode::done;
    }
    if (saved_step_ != run_.progress.step) save();
    console_.say(fmt::format("stopped by a signal after step {}; the same command goes on from here", run_.progress.step));
    return ExitCode::preempted;
  }

  // The step that was taken last, as planned then.
  StepPlan last_step_plan() const {
    Progress before = run_.progress;
    before.step -= 1;
    before.tokens -= run_.recipe.global_batch_tokens;
    return run_.plan->at(before);
  }

  // True if the run has to end: at once, or after too many in a row.
  bool give_up(const StepResult& result) {
    const int64_t step = run_.progress.step + 1;
    const std::string what =
        fmt::format("step {}: loss {:.4f}, grad_norm {:.2f}: not finite, the update was not applied", step, result.loss, result.grad_norm);
    if (run_.recipe.skip_nonfinite && run_.not_finite_in_a_row + 1 < kMaxSkipsInARow) {
      run_.not_finite_in_a_row += 1;
      console_.say(what + "; skipped (train.nonfinite: skip)");
      return false;
    }
    console_.say(what + (run_.recipe.skip_nonfinite ? fmt::format("; {} in a row, stopping", kMaxSkipsInARow) : "; stopping"));
    keep_last_step();
    return true;
  }

  // The state before the step that failed, as any save after the step before would have written it.
  void keep_last_step() {
    const char* advice = run_.recipe.skip_nonfinite ? "Lower optimizer.lr" : "Lower optimizer.lr, or set train.nonfinite: skip";
    const int64_t step = run_.progress.step;
    if (step == 0) return console_.say(fmt::format("No step was finished, so nothing is saved. {}", advice));
    if (saved_step_ != step) save();
    console_.say(
        fmt::format("The weights of step {} are in {}/checkpoints/{}. {}", step, run_.recipe.folder(), step_folder_name(step), advice));
  }

  void say_stage() {
    const StageRecipe& stage = run_.recipe.stages.at(static_cast<size_t>(run_.progress.stage));
    console_.say(fmt::format("stage {}: sequence length {} from step {} on", run_.progress.stage + 1, stage.sequence_length,
                             run_.progress.step + 1));
  }

  void say_attention(const StepPlan& plan) {
    if (plan.forward.layers == last_layers_) return;
    console_.say("attention: " + describe_layers(plan.forward.layers));
    last_layers_ = plan.forward.layers;
  }

  void report(const StepPlan& plan, const StepResult& result, double seconds) {
    const Progress& p = run_.progress;
    StepLine line;
    line.step = p.step;
    line.total_steps = run_.plan->total_steps();
    line.loss = result.loss;
    line.grad_norm = result.grad_norm;
    line.learning_rate = plan.learning_rate;
    line.step_ms = 1e3 * seconds;
    line.tokens_per_sec = static_cast<double>(run_.recipe.global_batch_tokens) / seconds;
    line.mfu = plan.flops_per_token * line.tokens_per_sec / (run_.peak_gflops * 1e9);
    line.memory_bytes = peak_rss_bytes();
    line.tokens = p.tokens;
    // The first steps pack weights and fill caches, so the estimate leans on recent ones.
    mean_seconds_ = mean_seconds_ == 0 ? seconds : 0.9 * mean_seconds_ + 0.1 * seconds;
    line.eta_seconds = mean_seconds_ * static_cast<double>(line.total_steps - p.step);
    const bool first = steps_here_++ == 0;
    console_.step(line, first || p.step % run_.recipe.logging_interval == 0 || run_.plan->finished(p));
    if (!run_.is_root()) return;
    run_.metrics->write({{"step", p.step},
                         {"tokens", p.tokens},
                         {"train/loss", line.loss},
                         {"train/grad_norm", line.grad_norm},
                         {"train/learning_rate", line.learning_rate},
                         {"perf/tokens_per_sec", line.tokens_per_sec},
                         {"perf/step_ms", line.step_ms},
                         {"perf/mfu", line.mfu},
                         {"memory/peak_rss_bytes", line.memory_bytes},
                         {"attention/type", plan.attention}});
  }

  void evaluate_after(const StepPlan& plan) {
    run_.world->at(run_.progress.step, "evaluation");
    EvaluationConfig config = evaluation_config(run_.recipe, plan.sequence_length);
    config.ranks = &run_.parallel->ranks();
    const auto stop = [this] {
      heed(run_.parallel->agree());
      return stop_;
    };
    const auto result = evaluate(*run_.model, plan.forward, config, stop, [this](double share) { console_.progress("evaluating", share); });
    run_.evaluation_due = !result;
    if (!result || !run_.is_root()) return;
    nlohmann::ordered_json line = {{"step", run_.progress.step}};
    line.update(evaluation_json(*result));
    run_.metrics->write(line);
    std::string text =
        fmt::format("eval at step {}: loss {:.4f} | {:.3f} bits per byte", run_.progress.step, result->loss, result->bits_per_byte);
    if (result->trailing_loss) text += fmt::format(" | trailing {:.4f}", *result->trailing_loss);
    if (!result->routing.empty()) text += fmt::format(" | own block {:.1f}% of choices", 100 * result->routing.total().own_share());
    console_.say(text);
  }

  RunState run_;
  Console& console_;
  std::vector<LayerAttention> last_layers_;
  double mean_seconds_ = 0;
  int64_t steps_here_ = 0;
  StepProfile profile_;
  bool profiled_ = profile_.due();              // and the table is still to come
  bool stop_ = false, save_requested_ = false;  // by a signal to any rank
  int64_t saved_step_;                          // of the newest checkpoint
};

// Processes on one machine share its cores, unless the launcher or OMP_NUM_THREADS has already given each its own.
void share_cores(const Launch& launch) {
  const bool given = std::getenv("OMP_NUM_THREADS") != nullptr || num_threads() < static_cast<int>(std::thread::hardware_concurrency());
  if (launch.local_size > 1 && !given) set_num_threads(std::max(1, num_threads() / launch.local_size));
}

}  // namespace

void check_started_processes(const Recipe& recipe, const Launch& launch) {
  if (launch.size == recipe.data_ranks) return;
  if (launch.size == 1)
    throw Error(fmt::format("parallel.data is {}, but this is one process; start it with: mpirun -n {} moba-train {} ...",
                            recipe.data_ranks, recipe.data_ranks, recipe.file));
  throw Error(fmt::format("{} started {} processes, but parallel.data is {}; add parallel.data={}", launch.by, launch.size,
                          recipe.data_ranks, launch.size));
}

ExitCode train(Recipe recipe, const TrainOptions& options) {
  const SignalWatch signals;
  share_cores(options.launch);
  WorldOptions world_options;
  world_options.time_limit_seconds = recipe.time_limit;
  const std::unique_ptr<World> world = World::start(options.launch, world_options);
  Console console(world->communicator().rank() != 0);
  ExitCode code = ExitCode::done;
  try {
    RunState run = open_run(std::move(recipe), options, *world, console);
    if (run.model) code = Trainer(std::move(run), console, options.profiled_steps).loop();
  } catch (const SharedError&) {
    world->finish();
    throw;
  } catch (const std::exception& error) {
    world->failed(error.what());
    throw;
  }
  world->finish();
  return code;
}

}  // namespace moba
