// How long the rest of a sweep takes.
#pragma once

namespace moba::sweep {

struct Work {
  double done = 0;  // FLOPs since this start
  double left = 0;  // FLOPs of what runs and waits
};

// Seconds by the speed since this start, evaluations and pauses included; `predicted` until there is enough of it to tell.
double remaining_seconds(const Work& work, double elapsed, double predicted);

}  // namespace moba::sweep
