// moba-sweep: runs the arms of a sweep file, and fits scaling laws to results.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "src/sweep/fit_command.h"
#include "src/sweep/sweep_command.h"
#include "tools/common/command_line.h"
#include "tools/common/program.h"

namespace {

using namespace moba;

// For a shell: words with anything but plain characters stand in single quotes.
std::string quoted(const std::string& word) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || std::strchr("_@%+=:,./-", c); };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string joined(int argc, char** argv) {
  std::string out;
  for (int i = 0; i < argc; ++i) out += (i ? " " : "") + quoted(argv[i]);
  return out;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');)
    if (!word.empty()) out.push_back(word);
  return out;
}

int parse_and_run(int argc, char** argv) {
  // `fit` is a word of its own, everything else a sweep file.
  const bool fit = argc > 1 && std::string(argv[1]) == "fit";
  sweep::SweepOptions run;
  sweep::FitCommand fitting;
  std::string only;
  const CommandLine app{
      fit ? "Fits scaling laws L(C) = a*C^b and e + a*C^b to a results.csv" : "Runs a recipe over a grid of overrides, arms and seeds",
      fit ? "moba-sweep fit" : "moba-sweep"};
  if (fit) {
    app.add_option("results", fitting.results, "results.csv of a sweep, or the sweep's folder").required();
    app.add_option("--metric", fitting.metric, "eval_loss, trailing_loss or train_loss").show_default();
    app.add_option("--flops", fitting.flops, "Count of FLOPs: 6nd, or attention (all matrices and the attention computed)")
        .one_of({"6nd", "attention"})
        .show_default();
    app.add_option("--level", fitting.level, "Level of the intervals, two-sided").share().show_default();
    app.add_option("--samples", fitting.samples, "Bootstrap samples").range(20, 100000).show_default();
    app.add_flag("--json", fitting.json, "One JSON object");
  } else {
    app.add_option("sweep", run.file, "Sweep file (recipes/ablation_granularity_mini.yaml)").required();
    app.add_option("overrides", run.overrides,
                   "section.key=value for every arm, values in YAML; also seeds=[1, 2], run.name, run.output_dir");
    app.add_option("--only", only, "Run these arms only (ARM,ARM); results of the others count where they are there");
    app.add_option("--jobs", run.jobs, "Trainings at a time; they share the threads").range(1, 1024).show_default();
    app.add_flag("--dry-run", run.dry_run, "Check everything, print the table of runs with time, memory and disk, then stop");
    app.add_flag("--report", run.report_only, "Write results.csv and the report from what is there, start nothing");
    app.footer(
        "moba-sweep fit RESULTS.csv: scaling laws. The same command goes on where it stopped. Exit codes: 0 done, 2 bad sweep file, recipe "
        "or usage, 3 corrupt input, 4 a loss was not finite, 5 input/output, 75 stopped by a signal (resumable).");
  }
  run.command_line = joined(argc, argv);
  if (const auto code = app.parse(fit ? argc - 1 : argc, fit ? argv + 1 : argv)) return *code;
  run.only = words(only);
  return static_cast<int>(fit ? sweep::run_fit(fitting) : sweep::run_sweep(run));
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("", [&] { return parse_and_run(argc, argv); });
}
