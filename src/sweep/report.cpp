#include "src/sweep/report.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "src/interop/hashed_file.h"
#include "src/sweep/child.h"
#include "src/sweep/fit_command.h"
#include "src/train/run_folder.h"

namespace moba::sweep {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

ordered_json optional_number(const std::optional<double>& v) { return v && std::isfinite(*v) ? ordered_json(*v) : ordered_json(nullptr); }

// The comment at the top of a sweep file, line by line: what the sweep is about.
std::vector<std::string> header_comment(const std::string& source) {
  std::vector<std::string> out;
  std::istringstream in(source);
  for (std::string line; std::getline(in, line) && line.starts_with("#");)
    out.push_back(line.substr(std::min(line.size(), line.find_first_not_of("# "))));
  return out;
}

std::vector<std::string> training_files(const Recipe& recipe) {
  std::vector<std::string> out;
  for (const StageRecipe& stage : recipe.stages)
    for (const SamplerConfig::Source& source : stage.sources)
      if (std::find(out.begin(), out.end(), source.path) == out.end()) out.push_back(source.path);
  return out;
}

ordered_json result_json(const Result& r) {
  ordered_json out = {{"arm", r.arm},       {"seed", r.seed},   {"group", r.group},           {"run", r.run},     {"folder", r.folder},
                      {"status", r.status}, {"ended", r.ended}, {"parameters", r.parameters}, {"steps", r.steps}, {"tokens", r.tokens}};
  out["eval_loss"] = optional_number(r.metric("eval_loss"));
  out["trailing_loss"] = optional_number(r.metric("trailing_loss"));
  out["train_loss"] = optional_number(r.metric("train_loss"));
  out["position_loss"] = ordered_json::array();
  for (double v : r.position_loss) out["position_loss"].push_back(optional_number(v));
  out["tokens_per_sec"] = r.tokens_per_sec;
  out["flops_6nd"] = r.flops_6nd;
  out["flops_with_attention"] = r.flops_with_attention;
  out["weights_hash"] = r.weights_hash;
  out["git_commit"] = r.git_commit;
  out["precision"] = r.precision;
  out["machine"] = r.machine;
  return out;
}

ordered_json published_json(const Published& p) {
  ordered_json out = {{"source", p.source}, {"metric", p.metric}, {"x_label", p.x_label}, {"points", ordered_json::array()}};
  const auto point = [](const Published::Point& q) { return ordered_json{{"arm", q.arm}, {"label", q.label}, {"value", q.value}}; };
  for (const auto& q : p.points) out["points"].push_back(point(q));
  if (p.baseline) out["baseline"] = point(*p.baseline);
  out["fits"] = ordered_json::array();
  for (const auto& f : p.fits) out["fits"].push_back({{"group", f.group}, {"a", f.a}, {"b", f.b}});
  return out;
}

// Fits by group (arms without one are no scaling curve), for every metric and both counts of FLOPs, where there are enough sizes.
ordered_json fits_json(const std::string& csv) {
  ordered_json out = ordered_json::array();
  const CsvTable table = read_csv(csv);
  for (const char* metric : {"eval_loss", "trailing_loss"})
    for (const char* flops : {"6nd", "attention"})
      for (const GroupPoints& g : scaling_points(table, metric, flops))
        for (const bool irreducible : {false, true}) {
          if (g.group.empty() || distinct_sizes(g.points) < (irreducible ? 4 : 3)) continue;
          FitOptions options;
          options.irreducible = irreducible;
          ordered_json fit = {{"group", g.group}, {"metric", metric}, {"flops", flops}, {"level", options.level}};
          fit.update(to_json(fit_with_intervals(g.points, options), irreducible));
          out.push_back(std::move(fit));
        }
  return out;
}

// tools/sweep_report of the sources this program was built in, or of its installation.
std::string report_script() {
  std::error_code error;
  const fs::path bin = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& candidate : {bin / "../../../tools/sweep_report", bin / "../share/moba/tools/sweep_report"})
    if (::access(candidate.c_str(), X_OK) == 0) return candidate.lexically_normal().string();
  return "";
}

std::string draw(const std::string& folder) {
  const std::string script = report_script(), log = folder + "/logs/report.log";
  if (script.empty())
    return fmt::format(
        "report/index.html is not drawn: tools/sweep_report is not beside this program; from the sources: tools/sweep_report {}", folder);
  make_run_folder(folder + "/logs");
  const Child child = Child::start(script, {folder}, {}, log);
  int status = 0;
  ::waitpid(child.pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return fmt::format("report: {}/report/index.html", folder);
  return fmt::format("report/index.html is not drawn ({}); python3 is needed: tools/sweep_report {}", last_lines(log, 1), folder);
}

}  // namespace

Report write_report(const Sweep& sweep, const Record& record, const std::vector<RunCost>& costs, const std::vector<Result>& results) {
  Report out;
  out.verdicts = judge(sweep.file.margins, results);
  const Margins& m = sweep.file.margins;
  ordered_json data = {{"name", sweep.name}, {"sweep_file", sweep.file.file}, {"header", header_comment(sweep.file.source)}};
  // Of the last start, not of whoever writes the report.
  data["command_line"] = record.json.value("command_line", "");
  data["git_commit"] = git_commit();
  data["started"] = record.started();
  data["margins"] = {{"equivalence", m.equivalence},
                     {"confidence", m.confidence},
                     {"spread", m.pooled ? "pooled" : "own"},
                     {"spike_steps", m.spike_steps},
                     {"spike_sigmas", m.spike_sigmas}};
  data["margins_changed"] = record.margins_changed(sweep);
  data["margins_then"] = record.json.value("margins", "");
  data["margins_now"] = sweep.file.margins_yaml;
  data["seeds"] = sweep.file.seeds;
  if (record.seeds_changed(sweep)) data["seeds_then"] = record.json.at("seeds");
  data["arms"] = ordered_json::array();
  for (size_t i = 0; i < sweep.file.arms.size(); ++i) {
    const Arm& arm = sweep.file.arms[i];
    ordered_json overrides = ordered_json::object();
    for (const Override& o : arm.overrides) overrides[o.key] = o.value;
    const RunCost& cost = costs[i];  // the first seed's runs come first, in the arms' order
    data["arms"].push_back({{"name", arm.name},
                            {"group", arm.group},
                            {"base", arm.base},
                            {"attn", arm.attention.value_or("")},
                            {"hybrid_layers", arm.hybrid_layers.value_or("")},
                            {"overrides", overrides},
                            {"data", training_files(sweep.runs[i].recipe)},
                            {"parameters", cost.parameters - cost.embedding_parameters},
                            {"tokens", cost.tokens},
                            {"sequence_length", sweep.runs[i].recipe.stages.front().sequence_length},
                            {"flops_6nd", cost.flops_6nd},
                            {"flops_with_attention", cost.flops}});
  }
  data["results"] = ordered_json::array();
  for (const Result& r : results) data["results"].push_back(result_json(r));
  data["verdicts"] = ordered_json::array();
  for (const Verdict& v : out.verdicts) data["verdicts"].push_back(to_json(v));
  data["fits"] = fits_json(sweep.folder() + "/results.csv");
  if (sweep.file.published) data["published"] = published_json(*sweep.file.published);
  make_run_folder(sweep.folder() + "/report");
  write_hashed_file(sweep.folder() + "/report/data.json", data.dump(1) + "\n");
  out.message = draw(sweep.folder());
  return out;
}

}  // namespace moba::sweep
