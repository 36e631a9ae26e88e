// After an update of the master weights: brings the compute copy up to date.
#pragma once
#include "src/optim/optimizer.h"

namespace moba::detail {

inline bool shares_master(const OptimizerParameter& p) { return p.value.value().storage() == p.master.storage(); }

// `copied`: the update has already written the compute copy.
inline void master_changed(const OptimizerParameter& p, bool copied) {
  if (!copied && !shares_master(p)) p.value.value().copy_from(p.master);
}

}  // namespace moba::detail
