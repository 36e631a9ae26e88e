// What this process is doing, for messages about lost ranks: written by the trainer (step, phase) and by the communication thread
// (the collective under way), read by the watchdog, which sends it to the other ranks.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace moba {

using Clock = std::chrono::steady_clock;

struct Activity {
  int64_t step = -1;
  std::string phase = "start";
  // The collective under way, or the last one.
  bool running = false;
  std::string kind, what, group;  // "all_reduce", "gradients, bucket 3", "world"
  int64_t number = 0;             // counted per group
  Clock::time_point since{};
  std::vector<int> members;                // ranks of the group
  std::map<std::string, int64_t> entered;  // group -> number of the last collective entered

  std::string place() const;       // "step 812, save" or "start"
  std::string collective() const;  // "all_reduce #55 'gradients, bucket 3'", empty before the first
};

class ActivityBoard {
 public:
  void at(int64_t step, const char* phase);
  void enter(const char* kind, const std::string& what, const std::string& group, int64_t number, const std::vector<int>& members);
  void leave();
  Activity read() const;

 private:
  mutable std::mutex mutex_;
  Activity activity_;
};

}  // namespace moba
