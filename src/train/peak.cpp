#include "src/train/peak.h"

#include <chrono>
#include <vector>

#include "kernels/matmul/matmul.h"

namespace moba {

double measured_peak_gflops(DType dtype) {
  constexpr int64_t kSize = 768;  // fits the caches, long enough for every thread
  constexpr double kSeconds = 0.2;
  using Clock = std::chrono::steady_clock;
  std::vector<float> a(kSize * kSize), b(kSize * kSize), c(kSize * kSize);  // also room for bf16
  kernels::MatmulArgs args;
  args.m = args.n = args.k = kSize;
  args.dtype = dtype;
  args.transpose_b = true;
  args.a = a.data();
  args.b = b.data();
  args.c = c.data();
  kernels::matmul(args);
  double best = 1e9;
  for (const auto end = Clock::now() + std::chrono::duration<double>(kSeconds); Clock::now() < end;) {
    const auto begin = Clock::now();
    kernels::matmul(args);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return 2.0 * kSize * kSize * kSize / best / 1e9;
}

}  // namespace moba
