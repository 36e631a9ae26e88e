// moba-bench suite: a fixed list of the other subcommands' cases, each a process of its own, as ratios to the measured peak, compared
// with a committed baseline. Ratios carry over between machines of one instruction set, times do not.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/common/bench.h"
#include "kernels/common/check.h"
#include "kernels/common/dispatch.h"
#include "src/train/host.h"
#include "tools/common/command_line.h"

namespace {

using namespace moba;
using Json = nlohmann::ordered_json;

struct Case {
  const char* name;
  const char* arguments;            // of moba-bench; --json is added
  std::vector<const char*> ratios;  // JSON pointers into its result; larger is better
  bool quick = false;               // part of --quick too
};

const std::vector<const char*> kAttention = {"/moba/forward_efficiency",  "/moba/backward_efficiency", "/full/forward_efficiency",
                                             "/full/backward_efficiency", "/speedup_forward",          "/speedup_forward_backward"};
const std::vector<const char*> kMobaOnly = {"/moba/forward_efficiency", "/moba/backward_efficiency"};

#define MOBA_124M "train {}/llama_124m.yaml --steps 2 "
#define MOBA_LONG                                                                                                              \
  "model.attention.type=moba model.max_position_embeddings=32768 train.sequence_length=32768 train.global_batch_tokens=32768 " \
  "train.activation_checkpointing=block"

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"attention, T 32768, 4 heads of 128, S 512, K 3, bf16", "attention --seq 32768 --chunk-size 512 --topk 3 --dtype bf16", kAttention},
      {"attention, T 32768, 4 heads of 128, S 512, K 3, f32", "attention --seq 32768 --chunk-size 512 --topk 3", kAttention},
      {"attention, T 32768, 4 heads of 128, S 128, K 8, bf16", "attention --seq 32768 --chunk-size 128 --topk 8 --dtype bf16 --seconds 20",
       kMobaOnly},
      {"attention, T 32768, 4 heads of 64, S 128, K 8, bf16",
       "attention --seq 32768 --head-dim 64 --chunk-size 128 --topk 8 --dtype bf16 --seconds 20", kMobaOnly},
      {"attention, T 32768, 8 over 2 heads of 128, S 512, K 3, bf16",
       "attention --seq 32768 --heads 8 --kv-heads 2 --chunk-size 512 --topk 3 --dtype bf16 --seconds 20", kMobaOnly},
      {"attention, T 32768, 4 heads of 128, S 64, K 8, bf16", "attention --seq 32768 --chunk-size 64 --topk 8 --dtype bf16 --seconds 20",
       kMobaOnly},
      {"attention, T 32768, 4 heads of 128, S 96, K 8, bf16", "attention --seq 32768 --chunk-size 96 --topk 8 --dtype bf16 --seconds 20",
       kMobaOnly},
      {"attention, T 32768, 4 heads of 128, S 500, K 3, bf16", "attention --seq 32768 --chunk-size 500 --topk 3 --dtype bf16 --seconds 20",
       kMobaOnly},
      {"attention, T 32768, 4 heads of 128, S 256, K 32, bf16",
       "attention --seq 32768 --chunk-size 256 --topk 32 --dtype bf16 --seconds 20", kMobaOnly},
      {"attention, T 8192, 4 heads of 64, S 128, K 3, f32", "attention --seq 8192 --head-dim 64 --chunk-size 128 --topk 3 --seconds 12",
       kAttention, true},
      {"attention, T 8192, 4 heads of 128, S 512, K 3, f32", "attention --seq 8192 --chunk-size 512 --topk 3 --seconds 12", kAttention,
       true},
      {"product 2048 x 2048 x 768, forward", "gemm --m 2048 --n 2048 --k 768", {"/efficiency"}, true},
      {"product 2048 x 768 x 2048, input gradient", "gemm --m 2048 --n 768 --k 2048 --plain-b", {"/efficiency"}, true},
      {"product 2048 x 768 x 2048, weight gradient", "gemm --m 2048 --n 768 --k 2048 --transpose-a --plain-b", {"/efficiency"}, true},
      {"product 768 x 768 x 2048, weight gradient", "gemm --m 768 --n 768 --k 2048 --transpose-a --plain-b", {"/efficiency"}},
      {"product 5152 x 1792 x 8192, weight gradient", "gemm --m 5152 --n 1792 --k 8192 --transpose-a --plain-b", {"/efficiency"}},
      {"product 2048 x 768 x 2048, weight gradient, bf16",
       "gemm --m 2048 --n 768 --k 2048 --transpose-a --plain-b --dtype bf16",
       {"/efficiency"}},
      {"training, 6M, 4 x 2048 tokens, MoBA", "train {}/small_6m.yaml --steps 3", {"/mfu"}, true},
      {"training, 124M, T 2048, full attention", MOBA_124M, {"/mfu"}},
      {"training, 124M, T 32768, MoBA, block checkpointing", MOBA_124M MOBA_LONG, {"/mfu"}},
  };
  return all;
}

struct Options {
  std::string recipes = "recipes", baseline, only;
  bool quick = false, json = false;
  double lost = 0.3;
};

std::string own_path() {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
  MOBA_CHECK(length > 0, "cannot find this program's own file");
  return {path, static_cast<size_t>(length)};
}

// The result of `moba-bench ARGUMENTS --json`.
Json run_case(const Case& c, const std::string& recipes) {
  std::string arguments = c.arguments;
  if (const size_t at = arguments.find("{}"); at != std::string::npos) arguments.replace(at, 2, recipes);
  std::FILE* pipe = ::popen(fmt::format("exec '{}' {} --json", own_path(), arguments).c_str(), "r");
  MOBA_CHECK(pipe, "cannot start {}", own_path());
  std::string text;
  char piece[4096];
  for (size_t n; (n = std::fread(piece, 1, sizeof piece, pipe)) > 0;) text.append(piece, n);
  if (::pclose(pipe) != 0) throw Error(fmt::format("moba-bench {}: failed, see above", arguments), ExitCode::numeric);
  return Json::parse(text);
}

Json ratios_of(const Case& c, const Json& result) {
  Json ratios;
  for (const char* pointer : c.ratios) ratios[pointer + 1] = result.at(Json::json_pointer(pointer));
  return ratios;
}

// Share of the baseline that the worst ratio reaches; 1 where there is nothing to compare with.
double worst_share(const Json& ratios, const Json& baseline) {
  double worst = 1e30;
  for (const auto& [key, value] : ratios.items())
    if (baseline.contains(key)) worst = std::min(worst, value.get<double>() / baseline[key].get<double>());
  return worst < 1e30 ? worst : 1;
}

void keep_larger(Json& ratios, const Json& others) {
  for (const auto& [key, value] : others.items())
    if (!ratios.contains(key) || value > ratios[key]) ratios[key] = value;
}

Json read_baseline(const std::string& path) {
  std::ifstream file(path);
  Json baseline = Json::parse(file, nullptr, false);
  MOBA_CHECK(baseline.is_object(), "--baseline {}: not a readable JSON object", path);
  const char* kernel = kernels::isa_name(kernels::active_isa());
  if (!baseline.contains(kernel))
    std::fprintf(stderr, "%s holds no figures of %s kernels: nothing to compare with\n", path.c_str(), kernel);
  return baseline.value(kernel, Json::object());
}

constexpr int kTries = 3;  // of a case that seems slow: other programs may have run, so each ratio is the best of its tries

Json measure(const Case& c, const Options& o, const Json& baseline) {
  Json row = {{"case", c.name}, {"arguments", c.arguments}, {"ratios", Json::object()}, {"of_baseline", 0.0}};
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const Json result = run_case(c, o.recipes);
    keep_larger(row["ratios"], ratios_of(c, result));
    row["of_baseline"] = worst_share(row["ratios"], baseline);
    if (result.contains("peak_gflops")) row["peak_gflops"] = result["peak_gflops"];
    if (row["of_baseline"].get<double>() >= 1 - o.lost) break;
  }
  return row;
}

void print_row(const Json& row, double lost) {
  std::string ratios;
  for (const auto& [key, value] : row["ratios"].items()) {
    const double v = value.get<double>();
    ratios += key.starts_with("speedup") ? fmt::format("  {} {:.2f}", key, v) : fmt::format("  {} {:.1f} %", key, 100 * v);
  }
  const double share = row["of_baseline"].get<double>();
  fmt::print("{}:{}{}\n", row["case"].get<std::string>(), ratios,
             share < 1 - lost ? fmt::format("  SLOW: {:.0f} % of the baseline", 100 * share) : "");
  std::fflush(stdout);
}

int suite(int argc, char** argv) {
  Options o;
  const CommandLine app{"The benchmarks of docs/performance.md as ratios to this machine's peak", "moba-bench suite"};
  app.add_flag("--quick", o.quick, "A part of the cases, about two minutes");
  app.add_option("--only", o.only, "Cases whose name contains this");
  app.add_option("--baseline", o.baseline, "JSON file of ratios to compare with (tools/moba_bench/baseline.json)").existing_file();
  app.add_option("--lost", o.lost, "Exit code 1 if a ratio is more than this share below its baseline, in three tries")
      .share()
      .show_default();
  app.add_option("--recipes", o.recipes, "Folder of the recipes").show_default();
  app.add_flag("--json", o.json, "Print one JSON object; \"baseline\" in it is what a baseline file holds");
  if (const auto code = app.parse(argc, argv)) return *code;
  const Json baseline = o.baseline.empty() ? Json::object() : read_baseline(o.baseline);
  Json rows = Json::array(), figures = Json::object();
  bool slow = false;
  for (const Case& c : cases()) {
    if ((o.quick && !c.quick) || std::string(c.name).find(o.only) == std::string::npos) continue;
    rows.push_back(measure(c, o, baseline.value(c.name, Json::object())));
    figures[c.name] = rows.back()["ratios"];
    slow |= rows.back()["of_baseline"].get<double>() < 1 - o.lost;
    if (!o.json) print_row(rows.back(), o.lost);
  }
  MOBA_CHECK(!rows.empty(), "--only {}: no case has that in its name", o.only);
  if (o.json) {
    const char* kernel = kernels::isa_name(kernels::active_isa());
    const Json out = {{"host", host_description()}, {"cases", rows}, {"baseline", {{kernel, figures}}}};
    fmt::print("{}\n", out.dump(1));
  }
  return slow ? 1 : 0;
}

const BenchRegistration suite_registration{{"suite", "all cases of docs/performance.md, compared with a baseline", suite}};

}  // namespace
