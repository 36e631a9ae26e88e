#include "src/sweep/results.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "kernels/common/check.h"
#include "src/interop/hashed_file.h"
#include "src/train/checkpoint.h"
#include "src/train/checkpoint_folders.h"
#include "src/train/console.h"

namespace moba::sweep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::optional<double> number_at(const json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? std::optional<double>(found->get<double>()) : std::nullopt;
}

void read_losses(const ArmRun& run, Result& out) {
  std::vector<double> losses, speeds;
  for (const json& line : read_metrics(run.folder())) {
    out.steps = std::max(out.steps, line.at("step").get<int64_t>());
    if (const auto tokens = number_at(line, "tokens")) out.tokens = static_cast<int64_t>(*tokens);
    if (const auto loss = number_at(line, "train/loss")) losses.push_back(*loss);
    if (const auto speed = number_at(line, "perf/tokens_per_sec")) speeds.push_back(*speed);
    if (!line.contains("eval/loss")) continue;
    out.eval_loss = number_at(line, "eval/loss");
    out.trailing_loss = number_at(line, "eval/trailing_loss");
    out.position_loss.clear();
    if (line.contains("eval/position_loss") && line["eval/position_loss"].is_array())
      for (const json& value : line["eval/position_loss"]) out.position_loss.push_back(value.is_number() ? value.get<double>() : NAN);
  }
  const size_t last = std::min(losses.size(), static_cast<size_t>(kTrainLossSteps));
  if (last > 0) {
    double sum = 0;
    for (size_t i = losses.size() - last; i < losses.size(); ++i) sum += losses[i];
    out.train_loss = sum / static_cast<double>(last);
  }
  out.tokens_per_sec = median(std::move(speeds));
}

void read_description(const ArmRun& run, Result& out) {
  std::ifstream file(run.folder() + "/run.json");
  const auto description = json::parse(file, nullptr, false);
  if (!description.is_object()) return;
  out.git_commit = description.value("git_commit", "");
  out.precision = description.value("precision", "");
  if (!description.contains("cpu")) return;
  out.machine =
      fmt::format("{}, {} threads, kernels {}, {}, host {}", description.value("cpu", ""), description.value("threads", 0),
                  description.value("kernels", ""), format_gib(description.value("memory_bytes", 0.0)), description.value("host", ""));
}

std::string status_text(const RunStatus& status, const std::string& ended) {
  if (status.state == RunState::finished) return "finished";
  if (!ended.empty()) return "failed";
  return status.state == RunState::partial ? "partial" : "absent";
}

// "fp32", where run.json has "fp32 (this CPU has no bf16 products)".
std::string first_word(const std::string& text) { return text.substr(0, text.find(' ')); }

std::string newest_step_folder(const std::string& folder) {
  const std::vector<StepFolder> folders = step_folders(folder + "/checkpoints");
  return folders.empty() ? "" : folders.front().path;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string csv_number(const std::optional<double>& value) { return value && std::isfinite(*value) ? fmt::format("{:.9g}", *value) : ""; }

std::string csv_line(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i) out += (i ? "," : "") + csv_cell(cells[i]);
  return out + "\n";
}

// One record of RFC 4180 text; false at the end.
bool read_record(std::istream& in, std::vector<std::string>& cells) {
  cells.assign(1, "");
  bool quoted = false, any = false;
  for (int c; (c = in.get()) != EOF;) {
    any = true;
    const char ch = static_cast<char>(c);
    if (quoted && ch == '"' && in.peek() == '"') {
      cells.back() += static_cast<char>(in.get());
    } else if (ch == '"') {
      quoted = !quoted;
    } else if (!quoted && ch == ',') {
      cells.emplace_back();
    } else if (!quoted && ch == '\n') {
      return true;
    } else if (ch != '\r') {
      cells.back() += ch;
    }
  }
  return any;
}

}  // namespace

std::optional<double> Result::metric(const std::string& name) const {
  if (status != "finished") return {};
  const std::optional<double> value = name == "trailing_loss" ? trailing_loss : name == "train_loss" ? train_loss : eval_loss;
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::vector<Result> collect_results(const Sweep& sweep, const Record& record, const std::vector<RunCost>& costs) {
  std::vector<Result> out;
  for (size_t i = 0; i < sweep.runs.size(); ++i) {
    const ArmRun& run = sweep.runs[i];
    Result r;
    r.arm = run.arm.name;
    r.group = run.arm.group;
    r.run = run.name;
    r.folder = run.folder();
    r.seed = run.seed;
    if (run.arm.attention) r.overrides.emplace_back("--attn", *run.arm.attention);
    if (run.arm.hybrid_layers) r.overrides.emplace_back("--hybrid-layers", *run.arm.hybrid_layers);
    r.overrides.emplace_back("base", run.arm.base);
    for (const Override& o : run.arm.overrides) r.overrides.emplace_back(o.key, o.value);
    const RunStatus status = run_status(run.recipe);
    r.status = status_text(status, record.ended(run.name));
    if (r.status == "failed") r.ended = record.ended(run.name);
    read_losses(run, r);
    read_description(run, r);
    const RunCost& cost = costs[i];
    const double share = cost.tokens > 0 ? static_cast<double>(r.tokens) / static_cast<double>(cost.tokens) : 0;
    r.parameters = cost.parameters - cost.embedding_parameters;
    r.flops_6nd = share * cost.flops_6nd;
    r.flops_with_attention = share * cost.flops;
    const std::string checkpoint = newest_step_folder(run.folder());
    if (status.state == RunState::finished && !checkpoint.empty()) r.weights_hash = weights_hash(checkpoint);
    out.push_back(std::move(r));
  }
  return out;
}

void write_results(const std::string& path, const std::vector<Result>& results) {
  std::vector<std::string> keys;
  size_t bins = 0;
  for (const Result& r : results) {
    bins = std::max(bins, r.position_loss.size());
    for (const auto& [key, value] : r.overrides)
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  std::vector<std::string> header = {"arm", "seed", "group", "status"};
  header.insert(header.end(), keys.begin(), keys.end());
  for (const char* name : {"steps", "tokens", "parameters", "eval_loss", "trailing_loss", "train_loss", "tokens_per_sec", "flops_6nd",
                           "flops_with_attention", "precision", "weights_hash", "git_commit", "folder", "ended"})
    header.emplace_back(name);
  for (size_t b = 0; b < bins; ++b) header.push_back(fmt::format("position_loss_{:02}", b));
  std::string text = csv_line(header);
  for (const Result& r : results) {
    std::vector<std::string> cells = {r.arm, std::to_string(r.seed), r.group, r.status};
    for (const std::string& key : keys) {
      const auto found = std::find_if(r.overrides.begin(), r.overrides.end(), [&](const auto& o) { return o.first == key; });
      cells.push_back(found == r.overrides.end() ? "" : found->second);
    }
    for (const int64_t n : {r.steps, r.tokens, r.parameters}) cells.push_back(std::to_string(n));
    for (const auto& v : {r.eval_loss, r.trailing_loss, r.train_loss}) cells.push_back(csv_number(v));
    cells.push_back(fmt::format("{:.1f}", r.tokens_per_sec));
    cells.push_back(fmt::format("{:.6e}", r.flops_6nd));
    cells.push_back(fmt::format("{:.6e}", r.flops_with_attention));
    for (const std::string& s : {first_word(r.precision), r.weights_hash, r.git_commit, r.folder, r.ended}) cells.push_back(s);
    for (size_t b = 0; b < bins; ++b) cells.push_back(b < r.position_loss.size() ? csv_number(r.position_loss[b]) : "");
    text += csv_line(cells);
  }
  write_hashed_file(path, text);
}

CsvTable read_csv(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path)) throw Error(fmt::format("{}: cannot be read", path), ExitCode::corrupt_input);
  CsvTable out;
  out.path = path;
  if (!read_record(file, out.columns))
    throw Error(fmt::format("{}: empty; expected a results.csv of moba-sweep", path), ExitCode::corrupt_input);
  int line = 1;
  for (std::vector<std::string> cells; ++line, read_record(file, cells);) {
    if (cells.size() != out.columns.size())
      throw Error(fmt::format("{}: record {} has {} cells, the header {}", path, line, cells.size(), out.columns.size()),
                  ExitCode::corrupt_input);
    auto& row = out.rows.emplace_back();
    for (size_t i = 0; i < cells.size(); ++i) row[out.columns[i]] = cells[i];
  }
  return out;
}

}  // namespace moba::sweep
