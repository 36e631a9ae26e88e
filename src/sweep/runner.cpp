#include "src/sweep/runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>

#include "kernels/common/threads.h"
#include "src/sweep/child.h"
#include "src/sweep/progress.h"
#include "src/sweep/remaining.h"
#include "src/train/console.h"
#include "src/train/run_folder.h"
#include "src/train/signals.h"

namespace moba::sweep {
namespace {

constexpr useconds_t kPoll = 50000;

class Runner {
 public:
  Runner(Sweep& sweep, const Prediction& prediction, const RunnerOptions& options)
      : sweep_(sweep),
        prediction_(prediction),
        options_(options),
        trainer_(program_beside_this("moba-train")),
        progress_(sweep),
        views_(sweep.runs.size()),
        children_(sweep.runs.size()) {
    for (size_t i = 0; i < views_.size(); ++i) {
      views_[i].status = prediction.statuses[i];
      if (!sweep.runs[i].asked) views_[i].stage = Stage::not_asked;
      if (views_[i].status.state == RunState::finished) views_[i].stage = Stage::finished;
    }
    make_run_folder(sweep.folder() + "/logs");
  }

  ExitCode run() {
    say_skipped();
    while (true) {
      if (SignalWatch::stop_requested()) stop_children();
      if (!stopping_) start_more();
      if (running() == 0) break;
      ::usleep(kPoll);
      reap();
      refresh();
    }
    if (code_ == ExitCode::done && stopping_) code_ = ExitCode::preempted;
    return code_;
  }

 private:
  int64_t running() const {
    return std::count_if(views_.begin(), views_.end(), [](const RunView& v) { return v.stage == Stage::running; });
  }

  void say_skipped() {
    const auto done = std::count_if(views_.begin(), views_.end(), [](const RunView& v) { return v.stage == Stage::finished; });
    if (done > 0) progress_.say(fmt::format("{} of {} runs are finished already and are skipped", done, views_.size()));
  }

  std::string log_path(size_t i) const { return fmt::format("{}/logs/{}.log", sweep_.folder(), sweep_.runs[i].name); }

  void start_more() {
    for (size_t i = 0; i < views_.size() && running() < options_.jobs; ++i) {
      if (views_[i].stage != Stage::waiting) continue;
      const int threads = std::max(1, num_threads() / options_.jobs);
      children_[i] = Child::start(trainer_, sweep_.runs[i].arguments, {fmt::format("OMP_NUM_THREADS={}", threads)}, log_path(i));
      views_[i].stage = Stage::running;
      options_.note_end(sweep_.runs[i].name, "");
      const RunStatus& s = views_[i].status;
      const std::string from =
          s.step > 0 ? fmt::format(", goes on from step {} of {} or the checkpoint before it", s.step, s.total_steps) : "";
      progress_.say(fmt::format("start {} ({} predicted){}", sweep_.runs[i].name, format_duration(prediction_.seconds_left[i]), from));
    }
  }

  void stop_children() {
    if (stopping_) return;
    stopping_ = true;
    progress_.say(fmt::format("signal: {} running trainings save after their step", running()));
    signal_children();
  }

  void signal_children() {
    for (size_t i = 0; i < views_.size(); ++i)
      if (views_[i].stage == Stage::running) children_[i].stop();
  }

  void reap() {
    for (size_t i = 0; i < views_.size(); ++i) {
      int status = 0;
      if (views_[i].stage == Stage::running && children_[i].ended(status)) ended(i, status);
    }
  }

  void ended(size_t i, int status) {
    RunView& view = views_[i];
    const ArmRun& run = sweep_.runs[i];
    view.status = run_status(run.recipe);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 0 && view.status.state == RunState::finished) {
      view.stage = Stage::finished;
      progress_.say(fmt::format("done  {}: loss {:.4f} after {} steps", run.name, view.status.loss, view.status.step));
      return publish();
    }
    // moba-train was stopped: by us, by somebody's kill, or by the system for want of memory. It can go on.
    if (code == static_cast<int>(ExitCode::preempted) || code < 0) {
      view.stage = Stage::stopped;
      view.why = code < 0 ? fmt::format("killed by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status))) : "";
      if (!view.why.empty()) options_.note_end(run.name, fmt::format("{} after step {}", view.why, view.status.step));
      if (!stopping_) note_failure(ExitCode::preempted);
      progress_.say(fmt::format("stop  {} at step {}{}; the same command goes on", run.name, view.status.step,
                                view.why.empty() ? "" : ": " + view.why));
      return;
    }
    view.stage = Stage::failed;
    view.why = code == static_cast<int>(ExitCode::numeric) ? fmt::format("not finite at step {}", view.status.step + 1)
                                                           : fmt::format("exit code {} after step {}", code, view.status.step);
    options_.note_end(run.name, view.why);
    note_failure(code == 0 || code > 127 ? ExitCode::io : static_cast<ExitCode>(code));
    progress_.say(fmt::format("fail  {}: {}; the end of {}:\n{}", run.name, view.why, log_path(i), last_lines(log_path(i), 5)));
    if (code == static_cast<int>(ExitCode::io)) {  // the next one would not find space either
      stopping_ = true;
      signal_children();
    }
    publish();
  }

  // The trainings are worth more than a picture of them.
  void publish() {
    try {
      options_.publish();
    } catch (const Error& error) {
      progress_.say(fmt::format("results and report are not up to date: {}", error.what()));
    }
  }

  void note_failure(ExitCode code) {
    if (code_ == ExitCode::done) code_ = code;
  }

  void refresh() {
    const auto now = std::chrono::steady_clock::now();
    if (now - refreshed_ < std::chrono::seconds(1)) return;
    refreshed_ = now;
    Work work;
    double predicted = 0;
    for (size_t i = 0; i < views_.size(); ++i) {
      if (views_[i].stage == Stage::running) views_[i].status = run_status(sweep_.runs[i].recipe);
      const RunCost& cost = prediction_.costs[i];
      const double share = share_done(views_[i].status);
      // A run that went back to its checkpoint has done nothing yet.
      work.done += std::max(0.0, share - share_done(prediction_.statuses[i])) * cost.flops;
      if (views_[i].stage != Stage::running && views_[i].stage != Stage::waiting) continue;
      work.left += (1 - share) * cost.flops;
      predicted += (1 - share) * cost.seconds;
    }
    progress_.update(views_, remaining_seconds(work, awake_.tick(now), predicted));
  }

  static double share_done(const RunStatus& s) {
    return static_cast<double>(s.step) / static_cast<double>(std::max<int64_t>(1, s.total_steps));
  }

  Sweep& sweep_;
  const Prediction& prediction_;
  const RunnerOptions& options_;
  std::string trainer_;
  Progress progress_;
  std::vector<RunView> views_;
  std::vector<Child> children_;
  AwakeTime awake_{std::chrono::steady_clock::now()};
  std::chrono::steady_clock::time_point refreshed_{};
  ExitCode code_ = ExitCode::done;
  bool stopping_ = false;
};

}  // namespace

ExitCode run_all(Sweep& sweep, const Prediction& prediction, const RunnerOptions& options) {
  return Runner(sweep, prediction, options).run();
}

}  // namespace moba::sweep
