// Progress of a long command on stderr: one live bar on a terminal, a plain line per quarter elsewhere.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace moba {

class ProgressBar {
 public:
  explicit ProgressBar(std::string title, std::string unit = "B");
  ~ProgressBar() { end(); }
  void update(int64_t done, int64_t total);
  void end();  // ends the bar's line

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_, unit_;
  bool terminal_;
  Clock::time_point start_, last_drawn_;
  int64_t last_quarter_ = -1;
  bool drawn_ = false;
};

}  // namespace moba
