// How long the rest of a sweep takes.
#pragma once
#include <chrono>

namespace moba::sweep {

struct Work {
  double done = 0;  // FLOPs since this start
  double left = 0;  // FLOPs of what runs and waits
};

// Seconds by the speed since this start, evaluations included; `predicted` until there is enough of it to tell.
double remaining_seconds(const Work& work, double elapsed, double predicted);

// Seconds in which this process ran. Between two ticks, which come every second, more than kSuspended is a pause (Ctrl-Z, a closed lid)
// and not slowness.
class AwakeTime {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::seconds kSuspended{30};

  explicit AwakeTime(Time start) : last_(start) {}
  double tick(Time now);

 private:
  Time last_;
  double seconds_ = 0;
};

}  // namespace moba::sweep
