// The only door to compute threads. Results never depend on the number of threads: a loop is cut into items by the
// caller (by shape, not by thread count), each item is computed by one thread, and sums across items are added in item order.
#pragma once
#include <cstdint>
#include <type_traits>

namespace moba {

// Number of compute threads. Default: cores available to this process, or OMP_NUM_THREADS where it is set.
int num_threads();
void set_num_threads(int n);  // n >= 1, else Error

namespace detail {
using ItemFn = void (*)(void* context, int64_t item, int thread);
void run_items(int64_t count, void* context, ItemFn fn);
using RangeFn = void (*)(void* context, int64_t begin, int64_t end);
void run_ranges(int64_t count, int64_t grain, void* context, RangeFn fn);
}  // namespace detail

// f(item, thread) for every item in [0, count), handed out one by one in ascending order (dynamic). thread < num_threads()
// and < count indexes per-thread scratch. Nested calls run serially. An exception in f is rethrown to the caller after all threads stop.
template <class F>
void parallel_items(int64_t count, F&& f) {
  detail::run_items(count, &f, [](void* c, int64_t i, int t) { (*static_cast<std::remove_reference_t<F>*>(c))(i, t); });
}

// f(begin, end) over [0, count) in pieces of `grain` elements (the last may be short); piece borders depend on grain only.
template <class F>
void parallel_for(int64_t count, int64_t grain, F&& f) {
  detail::run_ranges(count, grain, &f, [](void* c, int64_t b, int64_t e) { (*static_cast<std::remove_reference_t<F>*>(c))(b, e); });
}

}  // namespace moba
