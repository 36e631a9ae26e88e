#include "src/sweep/record.h"

#include <algorithm>
#include <filesystem>

#include "kernels/common/check.h"
#include "src/interop/hashed_file.h"
#include "src/train/run_folder.h"

namespace moba::sweep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool in_use(const std::string& folder) {
  std::error_code error;
  return fs::exists(folder, error) && !fs::is_empty(folder, error);
}

// "model.attention.moba_topk: 2 -> 4; ..." of at most a few keys.
std::string differences(const json& before, const json& now) {
  constexpr size_t kShown = 4;
  std::vector<std::string> keys, parts;
  for (const auto& [key, value] : now.items()) keys.push_back(key);
  for (const auto& [key, value] : before.items())
    if (!now.contains(key)) keys.push_back(key);
  for (const std::string& key : keys) {
    const json a = before.value(key, json("none")), b = now.value(key, json("none"));
    if (a != b)
      parts.push_back(key == "content of data" ? key : fmt::format("{}: {} -> {}", key, a.get<std::string>(), b.get<std::string>()));
  }
  const size_t more = parts.size() > kShown ? parts.size() - kShown : 0;
  parts.resize(std::min(parts.size(), kShown));
  return fmt::format("{}{}", fmt::join(parts, "; "), more ? fmt::format("; and {} more", more) : "");
}

}  // namespace

bool Record::margins_changed(const Sweep& sweep) const {
  return json.contains("margins") && json.at("margins").get<std::string>() != sweep.file.margins_yaml;
}

Record open_record(const Sweep& sweep, std::vector<std::string>& notes) {
  Record record;
  record.path = sweep.folder() + "/sweep.json";
  record.json = nlohmann::ordered_json::object();
  if (fs::exists(record.path)) {
    record.json = nlohmann::ordered_json::parse(read_whole_file(record.path), nullptr, false);
    if (!record.json.is_object() || !record.json.contains("runs"))
      throw Error(fmt::format("{}: not the record of a sweep; move the folder {} away or give this sweep another name (run.name=NAME)",
                              record.path, sweep.folder()),
                  ExitCode::corrupt_input);
  }
  const json known = record.json.contains("runs") ? json(record.json.at("runs")) : json::object();
  std::vector<std::string> stale;
  std::string folders;
  for (const ArmRun& run : sweep.runs) {
    if (!in_use(run.folder())) continue;
    std::string what;
    if (!known.contains(run.name))
      what = "was not made by this sweep";
    else if (known.at(run.name) != run.settings)
      what = differences(known.at(run.name), run.settings);
    if (what.empty()) continue;
    stale.push_back(fmt::format("  {}: {}", run.name, what));
    folders += " " + run.folder();
  }
  MOBA_CHECK(stale.empty(),
             "{}: {} of its {} runs are stale, made with other settings than {} has now:\n{}\nNothing was started. Undo the change, or "
             "remove them (rm -r{}), or keep them and start a sweep of another name (run.name=NAME).",
             sweep.folder(), stale.size(), sweep.runs.size(), sweep.file.file, fmt::join(stale, "\n"), folders);
  for (const auto& [name, settings] : known.items())
    if (in_use(sweep.folder() + "/" + name) &&
        std::none_of(sweep.runs.begin(), sweep.runs.end(), [&known_name = name](const ArmRun& r) { return r.name == known_name; }))
      notes.push_back(fmt::format("{}/{}: left over, not in the sweep file any more; not part of the results", sweep.folder(), name));
  if (record.margins_changed(sweep))
    notes.push_back("margins differ from those that stood when the first run started; the report will say so");
  return record;
}

void write_record(const Sweep& sweep, Record& record) {
  make_run_folder(sweep.folder());
  record.json["sweep_file"] = sweep.file.file;
  record.json["command_line"] = sweep.command_line;
  record.json["git_commit"] = git_commit();
  // The first word counts: later margins are compared with it.
  if (!record.json.contains("margins")) record.json["margins"] = sweep.file.margins_yaml;
  for (const ArmRun& run : sweep.runs) record.json["runs"][run.name] = run.settings;
  write_hashed_file(record.path, record.json.dump(1) + "\n");
  write_hashed_file(sweep.folder() + "/sweep.yaml", sweep.file.source);
}

}  // namespace moba::sweep
