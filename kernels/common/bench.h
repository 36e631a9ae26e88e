// Shared by benchmarks: the machine's measured peak, timing, and the list of moba-bench's subcommands.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/dispatch.h"

namespace moba {

// FLOP/s / 1e9 of the best multiply-add instruction that the active kernel variant uses for `dtype`, on `threads` threads for
// about `seconds`. bf16 without bf16 products counts fp32 multiply-adds: that is what the kernels run.
double measure_peak_gflops(DType dtype, int threads, double seconds);

// GB/s of memory: y += x over buffers larger than the caches, two reads and a write a word, all threads. Measured once a process.
double measure_bandwidth();

double now_seconds();  // steady clock

// Milliseconds: the median of `runs` runs after a warm-up run; fewer runs once `budget_seconds` are used up, at least one.
// The warm-up is left out where it alone would use up the budget.
double median_ms(const std::function<void()>& f, int runs, double budget_seconds);

// Peaks of one process, measured around what is reported between begin() and end().
class PeakMeter {
 public:
  void begin();
  void end();
  double gflops(DType dtype) const;  // the larger of both measurements
  // Both measurements of the dtype within 5 %, and with two threads at least 1.8 x the peak of one.
  bool valid(DType dtype) const;

 private:
  struct Sample {
    double f32 = 0, bf16 = 0, one_thread = 0;
  } before_, after_;
  static Sample measure();
};

// A subcommand: main gets the arguments after its name.
struct BenchCommand {
  std::string name, help;
  int (*main)(int argc, char** argv);
};
std::vector<BenchCommand>& bench_commands();

// File-scope object of a *_bench.cpp: const BenchRegistration registration{{"gemm", "...", gemm_bench}};
struct BenchRegistration {
  explicit BenchRegistration(BenchCommand command) { bench_commands().push_back(std::move(command)); }
};

}  // namespace moba
