// report/: data.json with everything the report says, and index.html drawn from it by tools/sweep_report.
#pragma once
#include "src/sweep/record.h"
#include "src/sweep/verdict.h"

namespace moba::sweep {

std::vector<Verdict> write_report(const Sweep& sweep, const Record& record, const std::vector<RunCost>& costs,
                                  const std::vector<Result>& results);

}  // namespace moba::sweep
