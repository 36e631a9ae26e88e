// After an update of the master weights: brings the compute copy up to date and moves the storage versions.
#pragma once
#include "src/optim/optimizer.h"

namespace moba::detail {

inline bool shares_master(const OptimizerParameter& p) { return p.value.value().storage() == p.master.storage(); }

// `copied`: the update has already written the compute copy.
inline void master_changed(const OptimizerParameter& p, bool copied) {
  const Tensor& copy = p.value.value();
  ++p.master.storage()->version;
  if (shares_master(p)) return;
  if (!copied) copy.copy_from(p.master);
  ++copy.storage()->version;
}

}  // namespace moba::detail
