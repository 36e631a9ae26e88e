// moba-train --profile: a few steps taken apart, operation by operation, and as a Chrome trace.
#pragma once
#include <string>
#include <vector>

#include "kernels/common/profile.h"
#include "src/train/training_step.h"

namespace moba {

// One row of the table: all calls of an operation. Operations inside another (the products of the loss, of Muon) carry its name
// before theirs, and their time does not count as its own.
struct ProfileRow {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
  KernelWork work;
};

// Rows by falling time: one per name or, with `by_shape`, one per name and shape of a product. Events of other threads are left out.
std::vector<ProfileRow> profile_rows(const std::vector<ProfileEvent>& events, bool by_shape);

class StepProfile {
 public:
  explicit StepProfile(int64_t steps) : wanted_(steps) {}
  bool due() const { return wanted_ > 0; }  // for steps still to take
  void begin_step();
  Lap lap();  // for training_step(); empty while no step is profiled
  void end_step();
  // What the table compares with: peak in GFLOP/s of the step's dtype; bandwidth in GB/s, measured here.
  std::string table(double peak_gflops) const;
  std::string chrome_trace() const;  // JSON, for chrome://tracing or Perfetto
  int64_t steps() const { return static_cast<int64_t>(steps_.size()); }

 private:
  struct Span {
    double begin = 0, end = 0;
  };
  int64_t wanted_ = 0;
  bool active_ = false;
  double mark_ = 0;
  std::vector<Span> steps_;
  std::vector<std::pair<StepPart, Span>> parts_;
  std::vector<ProfileEvent> events_;
};

}  // namespace moba
