#include "src/train/profile.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "kernels/common/bench.h"

namespace moba {
namespace {

const char* part_name(StepPart part) {
  switch (part) {
    case StepPart::data: return "data";
    case StepPart::forward: return "forward";
    case StepPart::backward: return "backward";
    case StepPart::reduction: return "reduction";
    case StepPart::update: return "update";
  }
  return "";
}

std::string shape_of(const KernelWork& w) { return w.k > 0 ? fmt::format(" {} x {} x {}", w.m, w.n, w.k) : ""; }

}  // namespace

std::vector<ProfileRow> profile_rows(const std::vector<ProfileEvent>& events, bool by_shape) {
  std::vector<ProfileEvent> own;
  std::ranges::copy_if(events, std::back_inserter(own), [](const ProfileEvent& e) { return e.thread == 0; });
  // Outer before inner: of two that begin together, the one that ends later.
  std::ranges::stable_sort(own, [](const auto& a, const auto& b) { return a.begin != b.begin ? a.begin < b.begin : a.end > b.end; });
  struct Open {
    double end = 0;
    std::string name;
    ProfileRow* row = nullptr;
  };
  std::map<std::string, ProfileRow> rows;
  std::vector<Open> open;
  for (const ProfileEvent& e : own) {
    while (!open.empty() && open.back().end <= e.begin) open.pop_back();
    const std::string name = open.empty() ? e.name : open.back().name + ": " + e.name;
    const std::string key = by_shape ? name + shape_of(e.work) : name;
    ProfileRow& row = rows[key];
    row.name = key;
    row.calls += 1;
    row.seconds += e.end - e.begin;
    row.work.flops += e.work.flops;
    row.work.bytes += e.work.bytes;
    row.work.k = e.work.k;
    if (!open.empty()) open.back().row->seconds -= e.end - e.begin;
    open.push_back({e.end, name, &row});
  }
  std::vector<ProfileRow> sorted;
  for (auto& [key, row] : rows) sorted.push_back(std::move(row));
  std::ranges::stable_sort(sorted, std::greater{}, &ProfileRow::seconds);
  return sorted;
}

void StepProfile::begin_step() {
  if (!due()) return;
  start_profile();
  active_ = true;
  mark_ = now_seconds();
  steps_.push_back({mark_, mark_});
}

Lap StepProfile::lap() {
  if (!active_) return {};
  return [this](StepPart part) {
    const double now = now_seconds();
    parts_.push_back({part, {mark_, now}});
    mark_ = now;
  };
}

void StepProfile::end_step() {
  if (!active_) return;
  active_ = false;
  steps_.back().end = now_seconds();
  for (ProfileEvent& e : stop_profile()) events_.push_back(e);
  --wanted_;
}

std::string StepProfile::table(double peak_gflops) const {
  double total = 0;
  for (const Span& s : steps_) total += s.end - s.begin;
  const double count = static_cast<double>(steps_.size()), bandwidth = measure_bandwidth();
  std::map<StepPart, double> parts;
  for (const auto& [part, span] : parts_) parts[part] += span.end - span.begin;
  std::string out = fmt::format("profile of {} steps, {:.1f} ms each:", steps_.size(), 1e3 * total / count);
  const char* separator = " ";
  for (const auto& [part, seconds] : parts) {
    out += fmt::format("{}{} {:.1f} %", separator, part_name(part), 100 * seconds / total);
    separator = ", ";
  }
  out += fmt::format("\nlimits: {:.0f} GFLOP/s, {:.1f} GB/s (memory; data in cache may exceed it)", peak_gflops, bandwidth);
  const auto add_rows = [&](const char* title, const std::vector<ProfileRow>& rows) {
    out +=
        fmt::format("\n{:<44} {:>8} {:>10} {:>7} {:>9} {:>8} {:>9}", title, "calls", "ms a step", "share", "GFLOP/s", "GB/s", "of limit");
    for (const ProfileRow& r : rows) {
      const double gflops = r.work.flops / r.seconds / 1e9, gbytes = r.work.bytes / r.seconds / 1e9;
      const double of_limit = std::max(gflops / peak_gflops, gbytes / bandwidth);
      const auto number = [](double v) { return v > 0 ? fmt::format("{:.1f}", v) : std::string("-"); };
      out += fmt::format("\n{:<44} {:>8.4g} {:>10.3f} {:>5.1f} % {:>9} {:>8} {:>9}", r.name, static_cast<double>(r.calls) / count,
                         1e3 * r.seconds / count, 100 * r.seconds / total, number(gflops), number(gbytes),
                         of_limit > 0 ? fmt::format("{:.0f} %", 100 * of_limit) : "-");
    }
  };
  std::vector<ProfileRow> rows = profile_rows(events_, false);
  ProfileRow rest{"everything else", static_cast<int64_t>(steps_.size()), total, {}};
  for (const ProfileRow& r : rows) rest.seconds -= r.seconds;
  rows.push_back(rest);
  add_rows("operation", rows);
  std::vector<ProfileRow> products = profile_rows(events_, true);
  std::erase_if(products, [](const ProfileRow& r) { return r.work.k == 0; });
  add_rows("product, m x n x k", products);
  return out;
}

std::string StepProfile::chrome_trace() const {
  nlohmann::ordered_json trace = nlohmann::ordered_json::array();
  const double start = steps_.empty() ? 0 : steps_.front().begin;
  const auto add = [&](const std::string& name, int row, double begin, double end, nlohmann::ordered_json args) {
    nlohmann::ordered_json event = {{"name", name}, {"ph", "X"}, {"pid", 0}, {"tid", row}};
    event["ts"] = 1e6 * (begin - start);
    event["dur"] = 1e6 * (end - begin);
    if (!args.empty()) event["args"] = std::move(args);
    trace.push_back(std::move(event));
  };
  constexpr int kFirstThread = 1;  // row 0 holds the steps and their parts
  for (size_t i = 0; i < steps_.size(); ++i) add(fmt::format("step {}", i + 1), 0, steps_[i].begin, steps_[i].end, {});
  for (const auto& [part, span] : parts_) add(part_name(part), 0, span.begin, span.end, {});
  for (const ProfileEvent& e : events_) {
    nlohmann::ordered_json args;
    const double seconds = e.end - e.begin;
    if (e.work.flops > 0) args["GFLOP/s"] = e.work.flops / seconds / 1e9;
    if (e.work.bytes > 0) args["GB/s"] = e.work.bytes / seconds / 1e9;
    if (e.work.k > 0) args["m, n, k"] = {e.work.m, e.work.n, e.work.k};
    add(e.name, kFirstThread + e.thread, e.begin, e.end, std::move(args));
  }
  return nlohmann::ordered_json{{"traceEvents", trace}, {"displayTimeUnit", "ms"}}.dump() + "\n";
}

}  // namespace moba
