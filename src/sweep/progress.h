// What a running sweep shows: a table that is redrawn on a terminal, plain lines elsewhere.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "src/sweep/predict.h"

namespace moba::sweep {

enum class Stage : uint8_t { waiting, running, finished, failed, stopped, not_asked };

struct RunView {
  Stage stage = Stage::waiting;
  std::string why;  // of failed
  RunStatus status;
};

class Progress {
 public:
  explicit Progress(const Sweep& sweep);
  ~Progress();
  void say(const std::string& text);                                   // a lasting line
  void update(const std::vector<RunView>& views, double eta_seconds);  // redraws, or prints a line every minute

 private:
  void erase();
  const Sweep& sweep_;
  bool terminal_ = false;
  int drawn_ = 0;  // lines of the table on the screen
  std::chrono::steady_clock::time_point last_;
};

}  // namespace moba::sweep
