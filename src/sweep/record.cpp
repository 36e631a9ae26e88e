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
    if (a == b) continue;
    const bool hash = key == kDataContent || key == kStartContent;
    parts.push_back(hash ? key : fmt::format("{}: {} -> {}", key, a.get<std::string>(), b.get<std::string>()));
  }
  const size_t more = parts.size() > kShown ? parts.size() - kShown : 0;
  parts.resize(std::min(parts.size(), kShown));
  return fmt::format("{}{}", fmt::join(parts, "; "), more ? fmt::format("; and {} more", more) : "");
}

// What can't be compared is left out of both: settings that missing inputs hide, and what older records do not have; of these, where the
// folder was, which later ones leave out.
std::string changes(json before, const ArmRun& run) {
  json now = run.settings;
  before.erase(kOutputDir);
  if (!before.contains(kStartContent)) now.erase(kStartContent);
  for (const std::string& key : run.unknown) before.erase(key), now.erase(key);
  return before == now ? "" : differences(before, now);
}

json recorded_runs(const Record& record) { return record.json.contains("runs") ? json(record.json.at("runs")) : json::object(); }

}  // namespace

bool Record::margins_changed(const Sweep& sweep) const {
  return json.contains("margins") && json.at("margins").get<std::string>() != sweep.file.margins_yaml;
}

bool Record::seeds_changed(const Sweep& sweep) const {
  return json.contains("seeds") && json.at("seeds").get<std::vector<uint64_t>>() != sweep.file.seeds;
}

std::string Record::ended(const std::string& run) const { return json.contains("ended") ? json.at("ended").value(run, "") : ""; }

void Record::set_ended(const std::string& run, const std::string& why) {
  if (ended(run) == why) return;
  if (why.empty())
    json.at("ended").erase(run);
  else
    json["ended"][run] = why;
  write_hashed_file(path, json.dump(1) + "\n");
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
  const json known = recorded_runs(record);
  std::vector<std::string> stale;
  std::string folders;
  for (const ArmRun& run : sweep.runs) {
    if (!in_use(run.folder())) continue;
    const std::string what = known.contains(run.name) ? changes(known.at(run.name), run) : "was not made by this sweep";
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
  if (record.seeds_changed(sweep))
    notes.push_back(fmt::format("seeds differ from those of the first start (then {}, now {}); the report will say so",
                                record.json.at("seeds").dump(), fmt::join(sweep.file.seeds, ", ")));
  return record;
}

void take_vocabulary(const Record& record, Sweep& sweep) {
  const json known = recorded_runs(record);
  for (ArmRun& run : sweep.runs) {
    if (run.recipe.model.vocab_size > 0 || !known.contains(run.name) || !known.at(run.name).contains(kVocabulary)) continue;
    run.recipe.model.vocab_size = std::stoll(known.at(run.name).at(kVocabulary).get<std::string>());
  }
}

void write_record(const Sweep& sweep, Record& record) {
  make_run_folder(sweep.folder());
  record.json["sweep_file"] = sweep.file.file;
  record.json["command_line"] = sweep.command_line;
  record.json["git_commit"] = git_commit();
  // The first word counts: later margins and seeds are compared with it.
  if (!record.json.contains("margins")) record.json["margins"] = sweep.file.margins_yaml;
  if (!record.json.contains("seeds")) record.json["seeds"] = sweep.file.seeds;
  for (const ArmRun& run : sweep.runs) record.json["runs"][run.name] = run.settings;
  write_hashed_file(record.path, record.json.dump(1) + "\n");
  write_hashed_file(sweep.folder() + "/sweep.yaml", sweep.file.source);
}

}  // namespace moba::sweep
