// report/: data.json with everything the report says, and index.html drawn from it by tools/sweep_report.
#pragma once
#include "src/sweep/record.h"
#include "src/sweep/verdict.h"

namespace moba::sweep {

struct Report {
  std::vector<Verdict> verdicts;
  std::string message;  // where the report is, or why it is not drawn
};
Report write_report(const Sweep& sweep, const Record& record, const std::vector<RunCost>& costs, const std::vector<Result>& results);

}  // namespace moba::sweep
