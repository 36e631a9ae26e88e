#include "src/train/metrics.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "kernels/common/check.h"
#include "src/interop/hashed_file.h"

namespace moba {
namespace {

// Lines up to a step. A torn last line (the process was killed while writing) is dropped, and so is what is no line of ours.
std::string kept_lines(const std::string& text, int64_t keep_step, bool evaluation_due) {
  const auto keep = [&](const nlohmann::json& line) {
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return false;
    const auto step = line["step"].get<int64_t>();
    return step < keep_step || (step == keep_step && !(evaluation_due && line.contains("eval/loss")));
  };
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string line = text.substr(begin, end - begin);
    if (keep(nlohmann::json::parse(line, nullptr, false))) out += line + "\n";
    begin = end + 1;
  }
  return out;
}

std::vector<std::pair<std::string, double>> scalars_of(const nlohmann::ordered_json& line) {
  std::vector<std::pair<std::string, double>> out;
  for (const auto& [key, value] : line.items()) {
    if (key == "step") continue;
    if (value.is_number()) out.emplace_back(key, value.get<double>());
    if (!value.is_array()) continue;
    for (size_t i = 0; i < value.size(); ++i)
      if (value[i].is_number() && std::isfinite(value[i].get<double>()))
        out.emplace_back(fmt::format("{}/{:02}", key, i), value[i].get<double>());
  }
  return out;
}

}  // namespace

bool has_evaluation(const std::string& folder, int64_t step) {
  std::ifstream file(folder + "/metrics.jsonl", std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    const auto values = nlohmann::json::parse(line, nullptr, false);
    if (values.is_object() && values.contains("eval/loss") && values.value("step", int64_t{-1}) == step) return true;
  }
  return false;
}

MetricsLog::MetricsLog(const std::string& folder, int64_t keep_step, bool tensorboard, bool evaluation_due)
    : path_(folder + "/metrics.jsonl") {
  const bool keep = keep_step > 0 && std::filesystem::exists(path_);
  write_hashed_file(path_, keep ? kept_lines(read_whole_file(path_), keep_step, evaluation_due) : "");
  file_ = std::fopen(path_.c_str(), "ae");
  if (!file_) throw Error(fmt::format("cannot open {}: {}", path_, std::strerror(errno)), ExitCode::io);
  if (tensorboard) tensorboard_ = std::make_unique<TensorBoardWriter>(folder + "/tb");
}

MetricsLog::~MetricsLog() { std::fclose(file_); }

void MetricsLog::sync() {
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0)
    throw Error(fmt::format("cannot write {}: {}", path_, std::strerror(errno)), ExitCode::io);
}

void MetricsLog::write(const nlohmann::ordered_json& line) {
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0)
    throw Error(fmt::format("cannot write {}: {}", path_, std::strerror(errno)), ExitCode::io);
  if (tensorboard_) tensorboard_->scalars(line.at("step").get<int64_t>(), scalars_of(line));
}

}  // namespace moba
