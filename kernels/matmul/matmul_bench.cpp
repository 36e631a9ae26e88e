// moba-bench gemm: one product, checked on a sample of rows against the
// reference, then timed as a share of the measured peak.
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/common/bench.h"
#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "tools/common/command_line.h"

namespace moba::kernels {
namespace {

constexpr int kRuns = 20;
constexpr double kSecondsToMeasure = 2;
constexpr int64_t kCheckedRows = 4;

struct Options {
  int64_t m = 2048, n = 2048, k = 2048;
  std::string dtype = "f32";
  int threads = 0;
  bool transpose_a = false, plain_b = false, json = false;
};

// Values in [-1, 1) from a fixed multiplicative sequence, in `dtype`.
std::vector<char> operand(DType dtype, int64_t n, uint32_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(static_cast<int32_t>(seed = seed * 1664525u + 1013904223u)) * 0x1p-31f;
  std::vector<char> bytes(x.size() * dtype_size(dtype));
  convert({}, DType::f32, dtype, n, x.data(), bytes.data());
  return bytes;
}

// Relative RMS error of the first rows of C against the reference.
double error_of(MatmulArgs p) {
  const int64_t stored_m = p.m;
  std::vector<float> want(static_cast<size_t>(std::min(kCheckedRows, p.m) * p.n));
  const auto* got = static_cast<const float*>(p.c);
  p.lda = p.transpose_a ? stored_m : p.k;
  p.m = std::min(kCheckedRows, p.m);
  p.c = want.data();
  matmul_reference(p);
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(got[i] - want[i], 2);
    norm += std::pow(want[i], 2);
  }
  return std::sqrt(error / norm);
}

int matmul_bench(int argc, char** argv) {
  Options o;
  const CommandLine app{
      "One matrix product C[m,n] = A[m,k] B[k,n]: time and share of "
      "the measured peak",
      "moba-bench gemm"};
  app.add_option("--m", o.m, "rows of C").positive();
  app.add_option("--n", o.n, "columns of C").positive();
  app.add_option("--k", o.k, "length of the sums").positive();
  app.add_option("--dtype", o.dtype, "of A and B; C is f32").one_of({"f32", "bf16"});
  app.add_option("--threads", o.threads, "compute threads (default: all)").positive();
  app.add_flag("--transpose-a", o.transpose_a, "A stored [k, m], as in a weight gradient");
  app.add_flag("--plain-b", o.plain_b, "B stored [k, n]; default [n, k], a Linear's weight");
  app.add_flag("--json", o.json, "print one JSON object");
  if (const auto code = app.parse(argc, argv)) return *code;
  if (o.threads) set_num_threads(o.threads);

  const DType dtype = o.dtype == "bf16" ? DType::bf16 : DType::f32;
  const std::vector<char> a = operand(dtype, o.m * o.k, 1), b = operand(dtype, o.n * o.k, 2);
  std::vector<float> c(static_cast<size_t>(o.m * o.n));
  MatmulArgs p;
  p.m = o.m, p.n = o.n, p.k = o.k;
  p.dtype = dtype;
  p.transpose_a = o.transpose_a;
  p.transpose_b = !o.plain_b;
  p.a = a.data(), p.b = b.data(), p.c = c.data();
  matmul(p);
  const double error = error_of(p);
  MOBA_CHECK(error <= 1e-5, "moba-bench gemm: the product is wrong, relative RMS error {:.3g}", error);

  PeakMeter peak;
  peak.begin();
  const double ms = median_ms([&] { matmul(p); }, kRuns, kSecondsToMeasure);
  peak.end();
  const double gflops = 2e-6 * static_cast<double>(o.m) * static_cast<double>(o.n) * static_cast<double>(o.k) / ms;
  const double efficiency = gflops / peak.gflops(dtype);
  if (!o.json) {
    fmt::print(
        "{} x {} x {} {} on {} threads, {}: {:.3f} ms, {:.1f} GFLOP/s, "
        "{:.1f} % of the peak of {:.1f}{}\n",
        o.m, o.n, o.k, o.dtype, num_threads(), isa_name(active_isa()), ms, gflops, 100 * efficiency, peak.gflops(dtype),
        peak.valid(dtype) ? "" : " (the peak moved: not valid)");
    return 0;
  }
  const nlohmann::json out = {
      {"config",
       {{"m", o.m},
        {"n", o.n},
        {"k", o.k},
        {"dtype", o.dtype},
        {"threads", num_threads()},
        {"kernel", isa_name(active_isa())},
        {"transpose_a", o.transpose_a},
        {"plain_b", o.plain_b}}},
      {"peak_gflops", {{"f32", peak.gflops(DType::f32)}, {"bf16", peak.gflops(DType::bf16)}, {"valid", peak.valid(dtype)}}},
      {"ms", ms},
      {"gflops", gflops},
      {"efficiency", efficiency},
      {"max_error", error}};
  fmt::print("{}\n", out.dump(2));
  return 0;
}

const BenchRegistration registration{{"gemm", "a matrix product: time and share of the peak", matmul_bench}};

}  // namespace
}  // namespace moba::kernels
