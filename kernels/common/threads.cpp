// A small persistent pool. Not OpenMP: libgomp's idle threads spin for milliseconds, which on a shared machine takes the very
// core that the others need (ten small training steps beside two busy processes: 21 s against 0.2 s), and thread sanitizers
// do not understand it. Here a waiting thread spins for some 50 us, then sleeps.
#include "kernels/common/threads.h"

#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kSpins = 4000;  // some 50 us

thread_local bool inside_parallel = false;

int cores_of_this_process() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
}

int default_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const int wanted = text ? std::atoi(text) : 0;
  return wanted >= 1 && wanted <= kMaxThreads ? wanted : std::max(1, cores_of_this_process());
}

int thread_count = default_threads();

void pause_once() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` is no longer `old`.
void wait_while(std::atomic<uint32_t>& value, uint32_t old, bool spin) {
  for (int i = 0; spin && i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_once();
  }
  value.wait(old, std::memory_order_acquire);
}

// Worker t runs body(t) once a round. One team runs at a time; others who come meanwhile (a second user thread) work alone.
class Pool {
 public:
  using Body = void (*)(void* context, int thread);

  ~Pool() { resize(0); }

  // False when the pool is taken: the caller then does the work itself.
  bool run(int threads, void* context, Body body) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    if (static_cast<int>(workers_.size()) + 1 != threads) resize(threads - 1);
    body_ = body;
    context_ = context;
    working_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    body(context, 0);
    for (uint32_t left = working_.load(std::memory_order_acquire); left != 0; left = working_.load(std::memory_order_acquire))
      wait_while(working_, left, spin_);
    return true;
  }

 private:
  void resize(int workers) {
    stop_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (auto& w : workers_) w.join();
    workers_.clear();
    stop_.store(false, std::memory_order_relaxed);
    spin_ = workers < cores_of_this_process();
    const uint32_t now = round_.load(std::memory_order_relaxed);
    for (int t = 1; t <= workers; ++t) workers_.emplace_back([this, t, now] { work(t, now); });
  }

  void work(int thread, uint32_t seen) {
    inside_parallel = true;
    while (true) {
      wait_while(round_, seen, spin_);
      ++seen;
      if (stop_.load(std::memory_order_relaxed)) return;
      body_(context_, thread);
      working_.fetch_sub(1, std::memory_order_acq_rel);
      working_.notify_one();
    }
  }

  std::mutex mutex_;
  std::vector<std::thread> workers_;
  std::atomic<uint32_t> round_{0}, working_{0};
  std::atomic<bool> stop_{false};
  bool spin_ = true;  // not when there are more threads than cores
  Body body_ = nullptr;
  void* context_ = nullptr;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

// Items of one loop, handed out one by one; the first exception ends the loop.
struct Items {
  int64_t count;
  void* context;
  detail::ItemFn fn;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void work(int thread) {
    if (thread >= count) return;  // scratch is often planned for as many threads as there are items
    try {
      for (int64_t i = next++; i < count; i = next++) fn(context, i, thread);
    } catch (...) {
      std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  }
};

}  // namespace

int num_threads() { return thread_count; }

void set_num_threads(int n) {
  MOBA_CHECK(n >= 1 && n <= kMaxThreads, "threads must be between 1 and {}, got {}", kMaxThreads, n);
  thread_count = n;
}

namespace detail {

void run_items(int64_t count, void* context, ItemFn fn) {
  Items items{.count = count, .context = context, .fn = fn, .next = 0, .error = nullptr, .error_mutex = {}};
  const bool alone = count <= 1 || thread_count == 1 || inside_parallel;
  bool done = false;
  if (!alone) {
    inside_parallel = true;
    done = pool().run(thread_count, &items, [](void* c, int thread) { static_cast<Items*>(c)->work(thread); });
    inside_parallel = false;
  }
  if (!done) items.work(0);
  if (items.error) std::rethrow_exception(items.error);
}

void run_ranges(int64_t count, int64_t grain, void* context, RangeFn fn) {
  struct Pieces {
    int64_t count, grain;
    void* context;
    RangeFn fn;
  } pieces{count, grain, context, fn};
  run_items((count + grain - 1) / grain, &pieces, [](void* p, int64_t i, int) {
    const auto& s = *static_cast<Pieces*>(p);
    const int64_t begin = i * s.grain;
    s.fn(s.context, begin, begin + s.grain < s.count ? begin + s.grain : s.count);
  });
}

}  // namespace detail
}  // namespace moba
