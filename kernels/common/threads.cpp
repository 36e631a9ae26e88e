#include "kernels/common/threads.h"

#include <atomic>
#include <exception>
#include <mutex>

#include "kernels/common/check.h"

#ifdef MOBA_THREADS_STD
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace moba {
namespace {

thread_local bool inside_parallel = false;

// Runs body(thread) on `threads` threads, the caller being thread 0.
#ifdef MOBA_THREADS_STD
int thread_count = static_cast<int>(std::thread::hardware_concurrency());

template <class Body>
void run_team(int threads, Body&& body) {
  std::vector<std::thread> team;
  for (int t = 1; t < threads; ++t) team.emplace_back([&body, t] { body(t); });
  body(0);
  for (auto& t : team) t.join();
}
#else
int thread_count = omp_get_max_threads();

template <class Body>
void run_team(int threads, Body&& body) {
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num());
}
#endif

}  // namespace

int num_threads() { return thread_count; }

void set_num_threads(int n) {
  MOBA_CHECK(n >= 1 && n <= 1024, "threads must be between 1 and 1024, got {}", n);
  thread_count = n;
#ifndef MOBA_THREADS_STD
  omp_set_num_threads(n);  // oneDNN asks OpenMP for its team size
#endif
}

namespace detail {

void run_items(int64_t count, void* context, ItemFn fn) {
  const int threads = static_cast<int>(count < thread_count ? count : thread_count);
  if (threads <= 1 || inside_parallel) {
    for (int64_t i = 0; i < count; ++i) fn(context, i, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  run_team(threads, [&](int thread) {
    inside_parallel = true;
    try {
      for (int64_t i = next++; i < count; i = next++) fn(context, i, thread);
    } catch (...) {
      std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
    inside_parallel = false;
  });
  if (error) std::rethrow_exception(error);
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
