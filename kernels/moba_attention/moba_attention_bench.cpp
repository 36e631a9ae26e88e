// moba-bench attention: MoBA against full attention, forward and backward, as a share of the machine's measured peak.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "kernels/common/bench.h"
#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/moba_attention/moba_attention.h"
#include "kernels/moba_gate/moba_gate.h"
#include "tools/common/command_line.h"

namespace moba {
namespace {

using namespace kernels;
using Json = nlohmann::ordered_json;

struct Config {
  int64_t seq = 8192, heads = 4, kv_heads = 0, head_dim = 128, chunk_size = 512, topk = 3;
  std::string dtype_word = "f32", sweep;
  DType dtype = DType::f32;
  int threads = 0, runs = 5;
  double seconds = 40;
  bool json = false;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
};

// Uniform numbers of variance 1 by hashing the index: fast and the same everywhere.
template <class T>
void fill_random(std::vector<T>& x, uint64_t seed) {
  parallel_for(static_cast<int64_t>(x.size()), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t z = (static_cast<uint64_t>(i) + (seed << 40)) * 0x9e3779b97f4a7c15u;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z ^= z >> 27;
      const float value = (static_cast<float>(z >> 40) * 0x1p-24f - 0.5f) * 3.4641016f;
      if constexpr (std::is_same_v<T, bf16>)
        x[static_cast<size_t>(i)] = to_bf16(value);
      else
        x[static_cast<size_t>(i)] = value;
    }
  });
}

template <class T>
double squares(const std::vector<T>& got, const std::vector<T>& want) {  // relative RMS
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = to_float(want[i]), d = to_float(got[i]) - w;
    error += d * d;
    norm += w * w;
  }
  return std::sqrt(error / std::max(norm, 1e-300));
}

// One sequence of tensors and everything timed on it.
template <class T>
class Problem {
 public:
  Problem(const Config& config, int64_t seq, bool backward) : config_(config), seq_(seq) {
    const auto q_size = static_cast<size_t>(seq * config.heads * config.head_dim);
    const auto k_size = static_cast<size_t>(seq * config.kv_heads * config.head_dim);
    for (auto* x : {&q_, &out_}) x->resize(q_size);
    for (auto* x : {&k_, &v_}) x->resize(k_size);
    lse_.resize(static_cast<size_t>(seq * config.heads));
    fill_random(q_, 1);
    fill_random(k_, 2);
    fill_random(v_, 3);
    if (!backward) return;
    for (auto* x : {&dout_, &dq_}) x->resize(q_size);
    for (auto* x : {&dk_, &dv_}) x->resize(k_size);
    fill_random(dout_, 4);
  }

  // The last `queries` queries against the first `keys` keys.
  AttentionGradArgs args(AttentionType type, int64_t keys, int64_t queries) {
    cu_q_ = {0, static_cast<int32_t>(queries)};
    cu_k_ = {0, static_cast<int32_t>(keys)};
    const int64_t first = keys - queries, q_at = first * config_.heads * config_.head_dim;
    AttentionGradArgs grad;
    AttentionArgs& a = grad.forward;
    a.shape = {1, cu_q_.data(), cu_k_.data(), queries, keys, config_.heads, config_.kv_heads, config_.head_dim};
    a.dtype = config_.dtype;
    a.type = type;
    a.softmax_scale = config_.scale();
    a.chunk_size = config_.chunk_size;
    a.slots = slots_;
    if (type == AttentionType::moba) a.selected = selected_.data() + first * config_.heads * slots_;
    a.q = q_.data() + q_at;
    a.k = k_.data();
    a.v = v_.data();
    a.out = out_.data() + q_at;
    a.lse = lse_.data() + first * config_.heads;
    grad.dout = dout_.empty() ? nullptr : dout_.data() + q_at;
    grad.dq = dq_.empty() ? nullptr : dq_.data() + q_at;
    grad.dk = dk_.data();
    grad.dv = dv_.data();
    return grad;
  }
  AttentionGradArgs args(AttentionType type) { return args(type, seq_, seq_); }

  void gate() {
    cu_k_ = {0, static_cast<int32_t>(seq_)};
    MobaGateArgs a;
    a.shape = {1, cu_k_.data(), cu_k_.data(), seq_, seq_, config_.heads, config_.kv_heads, config_.head_dim};
    a.dtype = config_.dtype;
    a.chunk_size = config_.chunk_size;
    a.topk = config_.topk;
    a.q = q_.data();
    a.k = k_.data();
    a.slots = slots_ = moba_slots(a.shape, config_.chunk_size, config_.topk);
    selected_.resize(static_cast<size_t>(seq_ * config_.heads * slots_));
    a.selected = selected_.data();
    moba_gate(a);
  }

  // Largest relative RMS against the plain kernel: outputs of single queries over the whole length, and outputs and gradients of
  // a prefix. Call after gate().
  double error_against_reference() {
    double worst = 0;
    for (const AttentionType type : {AttentionType::moba, AttentionType::full}) {
      for (const int64_t keys : {seq_, seq_ * 2 / 3 + 1, seq_ / 3 + 1}) {
        AttentionGradArgs a = args(type, keys, std::min<int64_t>(keys, 1));
        worst = std::max(worst, compare(a, false));
      }
      const int64_t prefix = std::min<int64_t>(seq_, 600);
      AttentionGradArgs a = args(type, prefix, prefix);
      worst = std::max(worst, compare(a, !dout_.empty()));
    }
    return worst;
  }

  // Computed, not measured: tensors, saved values, and the larger workspace of the gate (its centroids; it is through before attention
  // begins) and of attention. Measuring would take a whole call, which full attention is too slow for at the lengths that matter.
  int64_t bytes(AttentionType type, bool backward) {
    const AttentionArgs a = args(type).forward;
    auto size = [](const auto& x) { return static_cast<int64_t>(x.size() * sizeof(x[0])); };
    int64_t sum = size(q_) + size(k_) + size(v_) + size(out_) + size(lse_);
    int64_t workspace = attention_workspace_bytes(a, backward);
    if (type == AttentionType::moba) {
      sum += size(selected_);
      const int64_t blocks = (seq_ + config_.chunk_size - 1) / config_.chunk_size;
      workspace = std::max(workspace, blocks * config_.kv_heads * config_.head_dim * static_cast<int64_t>(sizeof(float)));
    }
    sum += workspace;
    if (backward) sum += size(dout_) + size(dq_) + size(dk_) + size(dv_);
    return sum;
  }

 private:
  double compare(AttentionGradArgs a, bool backward) {
    const auto q_size = static_cast<size_t>(a.forward.shape.tokens_q * config_.heads * config_.head_dim);
    const auto k_size = static_cast<size_t>(a.forward.shape.tokens_k * config_.kv_heads * config_.head_dim);
    std::vector<T> out[2], dq[2], dk[2], dv[2];
    std::vector<float> lse[2];
    for (int i = 0; i < 2; ++i) {
      out[i].resize(q_size);
      lse[i].resize(static_cast<size_t>(a.forward.shape.tokens_q * config_.heads));
      a.forward.out = out[i].data();
      a.forward.lse = lse[i].data();
      if (i == 0)
        attention_forward(a.forward);
      else
        attention_forward_reference(a.forward);
      if (!backward) continue;
      dq[i].resize(q_size);
      dk[i].resize(k_size);
      dv[i].resize(k_size);
      a.dq = dq[i].data();
      a.dk = dk[i].data();
      a.dv = dv[i].data();
      if (i == 0)
        attention_backward(a);
      else
        attention_backward_reference(a);
    }
    double worst = std::max(squares(out[0], out[1]), squares(lse[0], lse[1]));
    if (backward) worst = std::max({worst, squares(dq[0], dq[1]), squares(dk[0], dk[1]), squares(dv[0], dv[1])});
    return worst;
  }

  const Config& config_;
  int64_t seq_, slots_ = 1;
  std::vector<int32_t> cu_q_, cu_k_, selected_;
  std::vector<T> q_, k_, v_, out_, dout_, dq_, dk_, dv_;
  std::vector<float> lse_;
};

struct Timing {
  double ms = 0;
  std::string extrapolated;  // empty if everything ran
};

constexpr int64_t kSampleChunk = 1024;  // queries

// Times full attention; where that would take longer than the budget only its last queries, and one query alone: the difference is the
// cost of their pairs, the rest (packing the keys) is paid once.
template <class T>
Timing time_full(Problem<T>& problem, int64_t seq, bool backward, double gflops, int runs, double budget, const Config& c) {
  auto pairs = [&](int64_t queries) {
    return static_cast<double>(attention_pairs(problem.args(AttentionType::full, seq, queries).forward));
  };
  auto run = [&](int64_t queries) {
    AttentionGradArgs a = problem.args(AttentionType::full, seq, queries);
    if (backward)
      attention_backward(a);
    else
      attention_forward(a.forward);
  };
  const double flops_per_pair = (backward ? 10.0 : 4.0) * static_cast<double>(c.head_dim);
  const double seconds_per_pair = flops_per_pair / (0.5 * gflops * 1e9);
  if (pairs(seq) * seconds_per_pair < budget || seq <= 4 * kSampleChunk) return {median_ms([&] { run(seq); }, runs, budget), ""};
  int64_t chunks = 2;
  while (4 * chunks * kSampleChunk < seq && pairs(2 * chunks * kSampleChunk) * seconds_per_pair < budget / 3) chunks *= 2;
  const int64_t sample = chunks * kSampleChunk;
  double once_ms = 1e30, sample_ms = 1e30;  // best of two: a disturbance would count many times
  for (int i = 0; i < 2; ++i) {
    once_ms = std::min(once_ms, median_ms([&] { run(1); }, 1, 0));
    sample_ms = std::min(sample_ms, median_ms([&] { run(sample); }, 1, 0));
  }
  const double ms_per_pair = (sample_ms - std::min(once_ms, sample_ms)) / (pairs(sample) - pairs(1));
  return {sample_ms + ms_per_pair * (pairs(seq) - pairs(sample)),
          fmt::format("extrapolated from {} of {} chunks", chunks, seq / kSampleChunk)};
}

constexpr const char* kBytesNote = "computed from tensors and workspaces, not measured";

void print_json(const Json& json) { std::printf("%s\n", json.dump(2).c_str()); }

double tolerance(DType dtype) { return dtype == DType::bf16 ? 2e-2 : 1e-4; }

void check_error(double error, DType dtype) {
  if (!(error <= tolerance(dtype)))
    throw Error(fmt::format("attention differs from the reference by {:.2e} (relative RMS; allowed {:.0e}): nothing is reported", error,
                            tolerance(dtype)),
                ExitCode::numeric);
}

template <class T>
Json measure(const Config& c) {
  Problem<T> problem(c, c.seq, true);
  problem.gate();
  const double error = problem.error_against_reference();
  check_error(error, c.dtype);
  PeakMeter peak;
  peak.begin();
  const double budget = c.seconds / 4;

  struct Row {
    Timing forward, backward;
    double pairs = 0;
    int64_t bytes = 0;
  } moba, full;
  const double gate_ms = median_ms([&] { problem.gate(); }, c.runs, budget);
  const AttentionGradArgs args = problem.args(AttentionType::moba);
  moba.forward.ms = median_ms([&] { problem.gate(), attention_forward(args.forward); }, c.runs, budget);
  moba.backward.ms = median_ms([&] { attention_backward(args); }, c.runs, budget);
  full.forward = time_full(problem, c.seq, false, peak.gflops(c.dtype), c.runs, budget, c);
  full.backward = time_full(problem, c.seq, true, peak.gflops(c.dtype), c.runs, budget, c);
  peak.end();

  for (const AttentionType type : {AttentionType::moba, AttentionType::full}) {
    Row& row = type == AttentionType::moba ? moba : full;
    row.pairs = static_cast<double>(attention_pairs(problem.args(type).forward));
    row.bytes = problem.bytes(type, true);
  }
  auto report = [&](const Row& row) {
    const double work = row.pairs * static_cast<double>(c.head_dim) / 1e6, top = peak.gflops(c.dtype);
    const double forward = 4 * work / row.forward.ms, backward = 10 * work / row.backward.ms;
    Json j = {{"forward_ms", row.forward.ms}, {"backward_ms", row.backward.ms},      {"forward_gflops", forward},
              {"backward_gflops", backward},  {"forward_efficiency", forward / top}, {"backward_efficiency", backward / top},
              {"peak_bytes", row.bytes}};
    if (!row.forward.extrapolated.empty()) j["forward_note"] = row.forward.extrapolated;
    if (!row.backward.extrapolated.empty()) j["backward_note"] = row.backward.extrapolated;
    return j;
  };
  Json j;
  j["config"] = {{"seq", c.seq},           {"heads", c.heads},         {"kv_heads", c.kv_heads},
                 {"head_dim", c.head_dim}, {"topk", c.topk},           {"chunk_size", c.chunk_size},
                 {"dtype", c.dtype_word},  {"threads", num_threads()}, {"kernel", isa_name(active_isa())}};
  j["peak_gflops"] = {{"f32", peak.gflops(DType::f32)}, {"bf16", peak.gflops(DType::bf16)}, {"valid", peak.valid(c.dtype)}};
  j["moba"] = report(moba);
  j["moba"]["gate_ms"] = gate_ms;  // inside forward_ms
  j["full"] = report(full);
  j["speedup_forward"] = full.forward.ms / moba.forward.ms;
  j["speedup_forward_backward"] = (full.forward.ms + full.backward.ms) / (moba.forward.ms + moba.backward.ms);
  j["operation_limit"] = full.pairs / moba.pairs;
  j["peak_bytes_note"] = kBytesNote;
  j["max_error"] = error;
  return j;
}

// Forward over doubling lengths.
template <class T>
Json sweep(const Config& c) {
  const size_t colon = c.sweep.find(':');
  MOBA_CHECK(colon != std::string::npos, "--sweep {}: must be FIRST:LAST, for example 2048:131072", c.sweep);
  const int64_t first = std::atoll(c.sweep.c_str()), last = std::atoll(c.sweep.c_str() + colon + 1);
  MOBA_CHECK(first >= 1 && last >= first, "--sweep {}: must be FIRST:LAST with 1 <= FIRST <= LAST", c.sweep);
  const double start = now_seconds();
  PeakMeter peak;
  peak.begin();
  Json rows = Json::array();
  double error = 0;
  int64_t left = 0;
  for (int64_t seq = first; seq <= last; seq *= 2) ++left;
  for (int64_t seq = first; seq <= last; seq *= 2, --left) {
    // A third of what is left goes to each length but the last: the long ones need more.
    const double share = (c.seconds - (now_seconds() - start)) / std::min<double>(static_cast<double>(left), 3.0);
    Problem<T> problem(c, seq, false);
    problem.gate();
    if (seq == first) check_error(error = problem.error_against_reference(), c.dtype);
    const AttentionArgs args = problem.args(AttentionType::moba).forward;
    const double moba_ms = median_ms([&] { problem.gate(), attention_forward(args); }, c.runs, share / 3);
    const Timing full = time_full(problem, seq, false, peak.gflops(c.dtype), c.runs, share / 2, c);
    const auto tokens = static_cast<double>(seq);
    rows.push_back({{"seq", seq},
                    {"moba_ms", moba_ms},
                    {"full_ms", full.ms},
                    {"moba_ns_per_token", moba_ms * 1e6 / tokens},
                    {"full_ns_per_token", full.ms * 1e6 / tokens},
                    {"moba_bytes", problem.bytes(AttentionType::moba, false)},
                    {"full_bytes", problem.bytes(AttentionType::full, false)},
                    {"full_extrapolated", full.extrapolated}});
    if (!c.json)
      std::printf("%8ld tokens  MoBA %9.2f ms %8.0f ns/token  full %10.2f ms %8.0f ns/token %s\n", static_cast<long>(seq), moba_ms,
                  moba_ms * 1e6 / tokens, full.ms, full.ms * 1e6 / tokens, full.extrapolated.c_str());
  }
  peak.end();
  Json j;
  j["config"] = {{"sweep", c.sweep},       {"heads", c.heads},         {"kv_heads", c.kv_heads},
                 {"head_dim", c.head_dim}, {"topk", c.topk},           {"chunk_size", c.chunk_size},
                 {"dtype", c.dtype_word},  {"threads", num_threads()}, {"kernel", isa_name(active_isa())}};
  j["peak_gflops"] = {{"f32", peak.gflops(DType::f32)}, {"bf16", peak.gflops(DType::bf16)}, {"valid", peak.valid(c.dtype)}};
  j["rows"] = rows;
  j["bytes_note"] = kBytesNote;
  j["max_error"] = error;
  j["seconds"] = now_seconds() - start;
  return j;
}

void print_table(const Json& j) {
  for (const char* name : {"moba", "full"}) {
    const Json& r = j[name];
    std::printf("%-5s forward %10.2f ms %5.1f %% of peak   backward %10.2f ms %5.1f %%   %.2f GB (computed)\n", name,
                r["forward_ms"].get<double>(), 100 * r["forward_efficiency"].get<double>(), r["backward_ms"].get<double>(),
                100 * r["backward_efficiency"].get<double>(), r["peak_bytes"].get<double>() / 1e9);
    for (const char* note : {"forward_note", "backward_note"})
      if (r.contains(note)) std::printf("      %s: %s\n", note, r[note].get<std::string>().c_str());
  }
  std::printf("speed-up forward %.2f, forward and backward %.2f, limit by operations %.2f; error against the reference %.1e\n",
              j["speedup_forward"].get<double>(), j["speedup_forward_backward"].get<double>(), j["operation_limit"].get<double>(),
              j["max_error"].get<double>());
}

int attention_bench(int argc, char** argv) {
  Config c;
  const CommandLine app("MoBA against full attention on one sequence", "moba-bench attention");
  app.add_option("--seq", c.seq, "Tokens").range(1, int64_t{1} << 30).show_default();
  app.add_option("--heads", c.heads, "Query heads").positive().show_default();
  app.add_option("--kv-heads", c.kv_heads, "Key/value heads; default: --heads").positive();
  app.add_option("--head-dim", c.head_dim, "Head dimension, 1..256").range(1, 256).show_default();
  app.add_option("--chunk-size", c.chunk_size, "Block size S").positive().show_default();
  app.add_option("--topk", c.topk, "Blocks per query, the own one included").positive().show_default();
  app.add_option("--dtype", c.dtype_word, "f32 or bf16").one_of({"f32", "bf16"}).show_default();
  app.add_option("--threads", c.threads, "Threads; default: all").positive();
  app.add_option("--runs", c.runs, "Runs whose median is reported").positive().show_default();
  app.add_option("--seconds", c.seconds, "Time budget; long full attention is sampled to keep it").positive().show_default();
  app.add_option("--sweep", c.sweep, "FIRST:LAST: forward over doubling lengths instead of --seq");
  app.add_flag("--json", c.json, "Print one JSON object");
  if (const auto code = app.parse(argc, argv)) return *code;
  if (c.kv_heads == 0) c.kv_heads = c.heads;
  MOBA_CHECK(c.heads % c.kv_heads == 0, "--heads {} must be a multiple of --kv-heads {}", c.heads, c.kv_heads);
  if (c.threads > 0) set_num_threads(c.threads);
  c.dtype = c.dtype_word == "bf16" ? DType::bf16 : DType::f32;
  if (!c.sweep.empty()) {
    const Json j = c.dtype == DType::bf16 ? sweep<bf16>(c) : sweep<float>(c);
    if (c.json) print_json(j);
    return 0;
  }
  const Json j = c.dtype == DType::bf16 ? measure<bf16>(c) : measure<float>(c);
  if (c.json)
    print_json(j);
  else
    print_table(j);
  return 0;
}

const BenchRegistration registration{{"attention", "MoBA against full attention, over one length or a sweep", attention_bench}};

}  // namespace
}  // namespace moba
