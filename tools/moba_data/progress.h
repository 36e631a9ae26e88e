// Progress of a long command on stderr: one live bar on a terminal, a plain line per tenth elsewhere.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace moba {

class ProgressBar {
 public:
  explicit ProgressBar(std::string title);
  ~ProgressBar();                            // ends the bar's line
  void update(int64_t done, int64_t total);  // bytes

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_;
  bool terminal_;
  Clock::time_point start_, last_drawn_;
  int64_t last_tenth_ = -1;
  bool drawn_ = false;
};

}  // namespace moba
