// moba-bench train RECIPE.yaml [key=value ...]: whole optimizer steps of a recipe.
#include <cstdio>

#include "kernels/common/bench.h"
#include "kernels/common/threads.h"
#include "src/train/bench_train.h"
#include "tools/common/command_line.h"

namespace {

using namespace moba;

int train_bench(int argc, char** argv) {
  const CommandLine app{"Optimizer steps of a recipe, timed; nothing is written", "moba-bench train"};
  std::string file;
  RecipeOptions options;
  options.allow_missing_inputs = true;
  int64_t steps = 5;
  int threads = num_threads();
  bool json = false;
  app.add_option("recipe", file, "Recipe, a YAML file").required();
  app.add_option("overrides", options.overrides, "section.key=value");
  app.add_option("--attn", options.attention, "full, moba, moba_naive or window");
  app.add_option("--hybrid-layers", options.hybrid_layers, "lastN, firstN, none, all or 0,3,7");
  app.add_option("--steps", steps, "Timed steps, after one to warm up").show_default();
  app.add_option("--threads", threads, "Compute threads; by default all cores");
  app.add_flag("--json", json, "Print one JSON object");
  if (const auto code = app.parse(argc, argv)) return *code;
  set_num_threads(threads);
  const nlohmann::ordered_json result = bench_train(read_recipe(file, options), steps);
  if (json)
    std::printf("%s\n", result.dump(1).c_str());
  else
    std::printf("%.0f tokens/s, %.1f ms a step, MFU %.1f %% of %.0f GFLOP/s, peak memory %.2f GiB\n",
                result["tokens_per_sec"].get<double>(), result["step_ms"].get<double>(), 100 * result["mfu"].get<double>(),
                result["peak_gflops"].get<double>(), result["peak_rss_bytes"].get<double>() / 1073741824.0);
  return 0;
}

const BenchRegistration registration{{"train", "whole optimizer steps of a recipe", train_bench}};

}  // namespace
