#include "src/sweep/sweep_command.h"

#include <algorithm>
#include <cstdio>

#include "src/sweep/record.h"
#include "src/sweep/report.h"
#include "src/sweep/runner.h"
#include "src/train/folder_lock.h"
#include "src/train/run_folder.h"
#include "src/train/signals.h"

namespace moba::sweep {
namespace {

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Missing data does not keep a dry run from its table; the code says that the sweep could not start.
ExitCode show(const Sweep& sweep, const Prediction& prediction, int jobs) {
  print(prediction_table(sweep, prediction, jobs));
  for (const std::string& line : sweep.missing) print(line + "\n");
  return sweep.missing.empty() ? ExitCode::done : ExitCode::usage;
}

// Results and report as of now. A report may be asked for while the sweep runs: they take turns.
Report publish(const Sweep& sweep, const Record& record, const Prediction& prediction) {
  constexpr double kPatience = 60;
  make_run_folder(sweep.folder() + "/report");
  const FolderLock lock(sweep.folder() + "/report", {.program = "report", .patience_seconds = kPatience});
  const std::vector<Result> results = collect_results(sweep, record, prediction.costs);
  write_results(sweep.folder() + "/results.csv", results);
  return write_report(sweep, record, prediction.costs, results);
}

ExitCode run(Sweep& sweep, Record& record, Prediction& prediction, const std::vector<std::string>& notes, int jobs) {
  const SignalWatch signals;
  make_run_folder(sweep.folder());
  const FolderLock lock(sweep.folder(), {.program = "moba-sweep", .inherited = true});
  refresh_statuses(sweep, jobs, prediction);  // trainings that were waited for have gone on
  print(prediction_table(sweep, prediction, jobs));
  for (const std::string& note : notes) print(note + "\n");
  write_record(sweep, record);
  RunnerOptions running;
  running.jobs = jobs;
  running.note_end = [&](const std::string& name, const std::string& why) { record.set_ended(name, why); };
  running.publish = [&] { publish(sweep, record, prediction); };
  return run_all(sweep, prediction, running);
}

void print_verdicts(const std::vector<Verdict>& verdicts) {
  for (const Verdict& v : verdicts) print(fmt::format("{}: {}\n    {}\n", v.claim.name, outcome_text(v.outcome), v.text));
}

void require_inputs(const Sweep& sweep) { MOBA_CHECK(sweep.missing.empty(), "{}", fmt::join(sweep.missing, "\n")); }

// Results already there can be reported without the data, if the record tells the one thing that costs need of it.
void require_costs(const Record& record, Sweep& sweep) {
  take_vocabulary(record, sweep);
  const bool costs_known = std::all_of(sweep.runs.begin(), sweep.runs.end(), [](const ArmRun& r) { return r.recipe.model.vocab_size > 0; });
  if (!costs_known) require_inputs(sweep);
}

}  // namespace

ExitCode run_sweep(const SweepOptions& options) {
  Sweep sweep = open_sweep(options.file, options.overrides, options.only);
  sweep.command_line = options.command_line;
  if (!options.dry_run && !options.report_only) require_inputs(sweep);
  std::vector<std::string> notes;
  Record record = open_record(sweep, notes);
  require_costs(record, sweep);
  Prediction prediction = predict(sweep, options.jobs);
  if (options.dry_run) {
    for (const std::string& note : notes) print(note + "\n");
    return show(sweep, prediction, options.jobs);
  }
  ExitCode code = ExitCode::done;
  if (!options.report_only) {
    check_resources(sweep, prediction, options.jobs);
    code = run(sweep, record, prediction, notes, options.jobs);
  }
  const Report report = publish(sweep, record, prediction);
  if (code == ExitCode::preempted)
    print("stopped; the same command goes on from here\n");
  else
    print_verdicts(report.verdicts);
  print(report.message + "\n");
  return code;
}

}  // namespace moba::sweep
