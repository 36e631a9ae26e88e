#include "kernels/common/profile.h"

#include <atomic>
#include <mutex>

#include "kernels/common/bench.h"

namespace moba {
namespace {

struct Recorder {
  std::atomic<bool> on{false};
  std::atomic<int> generation{0};  // of profiles: thread numbers start anew with each
  std::atomic<int> threads{0};
  std::mutex mutex;
  std::vector<ProfileEvent> events;
};

Recorder& recorder() {
  static Recorder r;
  return r;
}

int thread_number() {
  thread_local int generation = 0, number = 0;
  Recorder& r = recorder();
  if (generation != r.generation) {
    generation = r.generation;
    number = r.threads++;
  }
  return number;
}

}  // namespace

bool profiling() { return recorder().on.load(std::memory_order_relaxed); }

void start_profile() {
  Recorder& r = recorder();
  {
    const std::lock_guard lock(r.mutex);
    r.events.clear();
    r.threads = 0;
    ++r.generation;
  }
  thread_number();
  r.on = true;
}

std::vector<ProfileEvent> stop_profile() {
  Recorder& r = recorder();
  r.on = false;
  const std::lock_guard lock(r.mutex);
  return std::move(r.events);
}

void record_profile(const ProfileEvent& event) {
  Recorder& r = recorder();
  const int thread = thread_number();
  const std::lock_guard lock(r.mutex);
  r.events.push_back(event);
  r.events.back().thread = thread;
}

ProfileScope::ProfileScope(const char* name, const KernelWork& work) : on_(profiling()) {
  if (!on_) return;
  event_.name = name;
  event_.work = work;
  event_.begin = now_seconds();
}

ProfileScope::~ProfileScope() {
  if (!on_) return;
  event_.end = now_seconds();
  record_profile(event_);
}

}  // namespace moba
