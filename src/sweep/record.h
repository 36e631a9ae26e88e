// sweep.json in the sweep's folder: with what settings each run was started, why runs ended that are not finished, and margins and
// seeds as they stood when the first run was started. It keeps results of different experiments from being mixed.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/sweep/arm_run.h"

namespace moba::sweep {

struct Record {
  nlohmann::ordered_json json;  // as written last; empty object before the first start
  std::string path;

  bool started() const { return json.contains("margins"); }
  bool margins_changed(const Sweep& sweep) const;                  // since the first start
  bool seeds_changed(const Sweep& sweep) const;                    // the same
  std::string ended(const std::string& run) const;                 // "not finite at step 7"; "" if nothing is known
  void set_ended(const std::string& run, const std::string& why);  // and on disk; "" takes it out
};

// Error(usage) naming every run whose folder was made with other settings (and which), with the remedy. `notes` receives a line
// for what the folder holds beyond the sweep file.
Record open_record(const Sweep& sweep, std::vector<std::string>& notes);
// model.vocab_size of runs whose data is missing, as the record has it.
void take_vocabulary(const Record& record, Sweep& sweep);
// Makes the folder and writes the record, before the first run starts.
void write_record(const Sweep& sweep, Record& record);

}  // namespace moba::sweep
