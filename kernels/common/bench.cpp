#include "kernels/common/bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels/common/threads.h"

namespace moba {
namespace {

using kernels::Isa;

constexpr int64_t kPasses = 50000;  // per call of a loop below, about 0.1 ms

// Loops of independent multiply-adds on zeros: 12 accumulators for fp32 (latency 4 x 2 ports), 16 for bf16 pairs (7.5 x 2).
#define MOBA_TWELVE(op) op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")
#define MOBA_SIXTEEN(op)                                                                                                                 \
  op("16") op("17") op("18") op("19") op("20") op("21") op("22") op("23") op("24") op("25") op("26") op("27") op("28") op("29") op("30") \
      op("31")
#define MOBA_LOW_CLOBBERS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"
#define MOBA_HIGH_CLOBBERS                                                                                                               \
  "xmm12", "xmm13", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", \
      "xmm29", "xmm30", "xmm31"

// Each returns the floating-point operations it did.
#define MOBA_OP(r) "movaps %%xmm12, %%xmm13\n mulps %%xmm12, %%xmm13\n addps %%xmm13, %%xmm" r "\n"
double run_sse() {
  for (int64_t i = 0; i < kPasses; ++i) asm volatile("xorps %%xmm12, %%xmm12\n" MOBA_TWELVE(MOBA_OP)::: MOBA_LOW_CLOBBERS);
  return 12.0 * 4 * 2 * kPasses;
}
#undef MOBA_OP

#define MOBA_OP(r) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" r "\n"
[[gnu::target("avx2,fma")]] double run_avx2() {
  asm volatile("vxorps %%ymm12, %%ymm12, %%ymm12\n vxorps %%ymm13, %%ymm13, %%ymm13\n" ::: MOBA_LOW_CLOBBERS);
  for (int64_t i = 0; i < kPasses; ++i) asm volatile(MOBA_TWELVE(MOBA_OP)::: MOBA_LOW_CLOBBERS);
  return 12.0 * 8 * 2 * kPasses;
}
#undef MOBA_OP

#define MOBA_OP(r) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" r "\n"
[[gnu::target("avx512f")]] double run_avx512() {
  asm volatile("vpxord %%zmm12, %%zmm12, %%zmm12\n vpxord %%zmm13, %%zmm13, %%zmm13\n" ::: MOBA_HIGH_CLOBBERS);
  for (int64_t i = 0; i < kPasses; ++i) asm volatile(MOBA_SIXTEEN(MOBA_OP)::: MOBA_HIGH_CLOBBERS);
  return 16.0 * 16 * 2 * kPasses;
}
#undef MOBA_OP

#define MOBA_OP(r) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" r "\n"
[[gnu::target("avx512f")]] double run_avx512_bf16() {
  asm volatile("vpxord %%zmm12, %%zmm12, %%zmm12\n vpxord %%zmm13, %%zmm13, %%zmm13\n" ::: MOBA_HIGH_CLOBBERS);
  for (int64_t i = 0; i < kPasses; ++i) asm volatile(MOBA_SIXTEEN(MOBA_OP)::: MOBA_HIGH_CLOBBERS);
  return 16.0 * 16 * 4 * kPasses;
}
#undef MOBA_OP

using Loop = double (*)();

Loop loop_of(DType dtype) {
  switch (kernels::active_isa()) {
    case Isa::avx2: return run_avx2;
    case Isa::avx512: return run_avx512;
    case Isa::avx512_bf16: return dtype == DType::bf16 ? run_avx512_bf16 : run_avx512;
    default: return run_sse;
  }
}

constexpr double kPeakSeconds = 0.15;

}  // namespace

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double measure_peak_gflops(DType dtype, int threads, double seconds) {
  const Loop loop = loop_of(dtype);
  const int before = num_threads();
  set_num_threads(threads);
  std::atomic<int> waiting{threads};
  std::vector<double> rates(static_cast<size_t>(threads));
  parallel_items(threads, [&](int64_t item, int) {
    const double arrived = now_seconds();  // start together, unless the system gives fewer threads
    for (--waiting; waiting.load() > 0 && now_seconds() - arrived < 0.1;) {
    }
    double flops = 0, spent = 0;
    const double start = now_seconds();
    while (spent < seconds) {
      flops += loop();
      spent = now_seconds() - start;
    }
    rates[static_cast<size_t>(item)] = flops / spent;
  });
  set_num_threads(before);
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum / 1e9;
}

double measure_bandwidth() {
  static const double measured = [] {
    constexpr int64_t kWords = int64_t{8} << 20, kPiece = 1 << 17;  // two buffers of 64 MiB
    std::vector<uint64_t> x(kWords, 1), y(kWords, 1);
    const auto pass = [&] {
      parallel_for(kWords, kPiece, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[static_cast<size_t>(i)] += x[static_cast<size_t>(i)];
      });
    };
    return 3 * 8.0 * kWords / median_ms(pass, 5, 1.0) / 1e6;
  }();
  return measured;
}

double median_ms(const std::function<void()>& f, int runs, double budget_seconds) {
  const double start = now_seconds();
  auto timed = [&] {
    const double begin = now_seconds();
    f();
    return (now_seconds() - begin) * 1e3;
  };
  std::vector<double> times{timed()};
  if (times[0] / 1e3 > budget_seconds / 2) return times[0];
  times.clear();  // it was the warm-up
  do times.push_back(timed());
  while (static_cast<int>(times.size()) < runs && now_seconds() - start < budget_seconds);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

PeakMeter::Sample PeakMeter::measure() {
  return {measure_peak_gflops(DType::f32, num_threads(), kPeakSeconds), measure_peak_gflops(DType::bf16, num_threads(), kPeakSeconds),
          measure_peak_gflops(DType::f32, 1, kPeakSeconds)};
}

void PeakMeter::begin() { before_ = measure(); }
void PeakMeter::end() { after_ = measure(); }

double PeakMeter::gflops(DType dtype) const {
  return dtype == DType::bf16 ? std::max(before_.bf16, after_.bf16) : std::max(before_.f32, after_.f32);
}

bool PeakMeter::valid(DType dtype) const {
  const double a = dtype == DType::bf16 ? before_.bf16 : before_.f32, b = dtype == DType::bf16 ? after_.bf16 : after_.f32;
  const double one = std::max(before_.one_thread, after_.one_thread), all = std::max(before_.f32, after_.f32);
  return std::min(a, b) >= 0.95 * std::max(a, b) && (num_threads() != 2 || all >= 1.8 * one);
}

std::vector<BenchCommand>& bench_commands() {
  static std::vector<BenchCommand> commands;
  return commands;
}

}  // namespace moba
