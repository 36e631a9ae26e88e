#include "src/sweep/remaining.h"

namespace moba::sweep {
namespace {

constexpr double kEnoughSeconds = 30, kEnoughShare = 0.01;

}  // namespace

double remaining_seconds(const Work& work, double elapsed, double predicted) {
  const bool enough = elapsed >= kEnoughSeconds || work.done >= kEnoughShare * (work.done + work.left);
  if (work.done <= 0 || !enough) return predicted;
  return work.left * elapsed / work.done;
}

double AwakeTime::tick(Time now) {
  if (now - last_ <= kSuspended) seconds_ += std::chrono::duration<double>(now - last_).count();
  last_ = now;
  return seconds_;
}

}  // namespace moba::sweep
