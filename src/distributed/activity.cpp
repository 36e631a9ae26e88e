#include "src/distributed/activity.h"

#include <fmt/format.h>

namespace moba {

std::string Activity::place() const { return step < 0 ? phase : fmt::format("step {}, {}", step, phase); }

std::string Activity::collective() const {
  if (kind.empty()) return "";
  std::string text = fmt::format("{} #{}", kind, number);
  if (group != "world") text += fmt::format(" of group {}", group);
  if (!what.empty()) text += fmt::format(" '{}'", what);
  return text;
}

void ActivityBoard::at(int64_t step, const char* phase) {
  std::lock_guard lock(mutex_);
  activity_.step = step;
  activity_.phase = phase;
}

void ActivityBoard::enter(const char* kind, const std::string& what, const std::string& group, int64_t number,
                          const std::vector<int>& members) {
  std::lock_guard lock(mutex_);
  activity_.running = true;
  activity_.kind = kind;
  activity_.what = what;
  activity_.group = group;
  activity_.number = number;
  activity_.since = Clock::now();
  activity_.members = members;
  activity_.entered[group] = number;
}

void ActivityBoard::leave() {
  std::lock_guard lock(mutex_);
  activity_.running = false;
}

Activity ActivityBoard::read() const {
  std::lock_guard lock(mutex_);
  return activity_;
}

}  // namespace moba
