// Latency and bandwidth of the communicator: mpirun -n 2 moba-ranks-bench
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "src/distributed/world.h"

namespace {

using namespace moba;

double median_seconds(Communicator& all, int64_t n, int times) {
  using clock = std::chrono::steady_clock;
  const Tensor x = Tensor::zeros({n}, DType::f32);
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    const auto begin = clock::now();
    all.all_reduce(x, ReduceOp::sum, "bench").wait();
    seconds.push_back(std::chrono::duration<double>(clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + times / 2, seconds.end());
  return seconds[static_cast<size_t>(times / 2)];
}

}  // namespace

int main() {
  try {
    const auto world = World::start(read_launch(), {});
    Communicator& all = world->communicator();
    for (int64_t n : {1, 1, 256, 8192, 1 << 16, 1 << 20, 1 << 24}) {
      const double s = median_seconds(all, n, n > 1 << 18 ? 15 : 1000);
      if (world->rank() == 0)
        fmt::print("all_reduce f32 {:>9} elements: {:9.1f} us  {:7.3f} GB/s of tensor\n", n, s * 1e6, static_cast<double>(n) * 4e-9 / s);
    }
    world->finish();
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
