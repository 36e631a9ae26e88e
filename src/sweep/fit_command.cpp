#include "src/sweep/fit_command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "src/sweep/strict_map.h"

namespace moba::sweep {
namespace {

using nlohmann::ordered_json;

double cell_number(const std::map<std::string, std::string>& row, const std::string& column, const std::string& what) {
  const std::string& text = row.at(column);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw Error(fmt::format("{}: {}: not a number: '{}'", what, column, text), ExitCode::corrupt_input);
  return value;
}

constexpr int64_t kLeastSizes = 3;  // for a law without an irreducible term

// Notes must not stand in the JSON object.
std::FILE* notes_to(const FitCommand& command) { return command.json ? stderr : stdout; }

std::string interval_text(const Interval& i) { return fmt::format("[{:.4g}, {:.4g}]", i.low, i.high); }

void print_fit(const std::string& group, const Fit& f, bool irreducible) {
  std::string law = irreducible ? fmt::format("L = {:.4f} + {:.4g} * C^{:.4f}", f.law.irreducible, f.law.a, f.law.b)
                                : fmt::format("L = {:.4g} * C^{:.4f}", f.law.a, f.law.b);
  std::string text = fmt::format("  {:<12} {}   ", group, law);
  if (f.has_intervals)
    text += fmt::format("a {}  b {}{}", interval_text(f.a), interval_text(f.b), irreducible ? "  e " + interval_text(f.irreducible) : "");
  else
    text += "too few sizes for intervals";
  text += fmt::format("  ({} points of {} sizes, rms of log residuals {:.1e})\n", f.points, f.sizes, f.residual);
  std::fputs(text.c_str(), stdout);
}

}  // namespace

int64_t distinct_sizes(const std::vector<ScalingPoint>& points) {
  std::set<double> sizes;
  for (const ScalingPoint& p : points) sizes.insert(p.compute);
  return static_cast<int64_t>(sizes.size());
}

std::vector<GroupPoints> scaling_points(const CsvTable& table, const std::string& metric, const std::string& flops) {
  const std::string column = flops == "6nd" ? "flops_6nd" : "flops_with_attention";
  std::vector<GroupPoints> out;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const auto& row = table.rows[i];
    for (const std::string& needed : {std::string("status"), std::string("group"), metric, column})
      if (!row.contains(needed))
        throw Error(fmt::format("{}: no column '{}': expected a results.csv of moba-sweep", table.path, needed), ExitCode::corrupt_input);
    if (row.at("status") != "finished" || row.at(metric).empty()) continue;
    const std::string what = fmt::format("{}: row {} ({})", table.path, i + 2, row.contains("arm") ? row.at("arm") : "");
    const ScalingPoint point{cell_number(row, column, what) / kFlopsPerPetaflopDay, cell_number(row, metric, what)};
    auto group = std::find_if(out.begin(), out.end(), [&](const GroupPoints& g) { return g.group == row.at("group"); });
    if (group == out.end()) group = out.insert(out.end(), {row.at("group"), {}});
    group->points.push_back(point);
  }
  return out;
}

ordered_json to_json(const Fit& f, bool irreducible) {
  const auto pair = [&](const Interval& i) { return f.has_intervals ? ordered_json::array({i.low, i.high}) : ordered_json(nullptr); };
  ordered_json out = {{"a", f.law.a}, {"a_interval", pair(f.a)}, {"b", f.law.b}, {"b_interval", pair(f.b)}};
  if (irreducible) out["irreducible"] = f.law.irreducible, out["irreducible_interval"] = pair(f.irreducible);
  out["points"] = f.points;
  out["sizes"] = f.sizes;
  out["rms_log_residual"] = f.residual;
  return out;
}

ExitCode run_fit(const FitCommand& command) {
  const auto& known = metric_names();
  MOBA_CHECK(std::find(known.begin(), known.end(), command.metric) != known.end(), "--metric {}: must be one of {}", command.metric,
             fmt::join(known, ", "));
  const std::string path = std::filesystem::is_directory(command.results) ? command.results + "/results.csv" : command.results;
  const std::vector<GroupPoints> groups = scaling_points(read_csv(path), command.metric, command.flops);
  MOBA_CHECK(!groups.empty(), "{}: no finished run has a {}", path, command.metric);
  const auto enough = [](const GroupPoints& g) { return distinct_sizes(g.points) >= kLeastSizes; };
  MOBA_CHECK(std::any_of(groups.begin(), groups.end(), enough),
             "{}: no group has the {} different FLOPs that a law needs; run more sizes, or set `group` of the arms", path, kLeastSizes);
  ordered_json out = {
      {"results", path}, {"metric", command.metric}, {"flops", command.flops}, {"level", command.level}, {"unit", "PFLOP/s-days"}};
  if (!command.json)
    fmt::print(
        "{} against {} FLOPs in PFLOP/s-days; Huber loss of log residuals; {:g} % intervals by size (bootstrap of {} samples and Student's "
        "t)\n",
        command.metric, command.flops == "6nd" ? "6ND" : "all", 100 * command.level, command.samples);
  for (const GroupPoints& g : groups) {
    if (!enough(g)) {
      fmt::print(notes_to(command), "  group '{}' is left out: {} different FLOPs, a law needs at least {}\n", g.group,
                 distinct_sizes(g.points), kLeastSizes);
      continue;
    }
    for (const bool irreducible : {false, true}) {
      if (irreducible && distinct_sizes(g.points) <= kLeastSizes) continue;
      const Fit fit = fit_with_intervals(g.points, {irreducible, command.level, command.samples, 1});
      if (command.json)
        out["groups"][g.group][irreducible ? "with_irreducible" : "power"] = to_json(fit, irreducible);
      else
        print_fit(g.group.empty() ? "(all)" : g.group, fit, irreducible);
    }
  }
  if (command.json) fmt::print("{}\n", out.dump(1));
  return ExitCode::done;
}

}  // namespace moba::sweep
