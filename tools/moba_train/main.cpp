// moba-train: trains a model from a recipe.
#include <cstdio>
#include <optional>

#include "src/distributed/agree.h"
#include "src/train/dry_run.h"
#include "src/train/recipe.h"
#include "src/train/schema.h"
#include "src/train/trainer.h"
#include "tools/common/command_line.h"
#include "tools/common/program.h"

namespace {

using namespace moba;

struct Arguments {
  std::string recipe;
  RecipeOptions recipe_options;
  TrainOptions train;
  bool started = false;  // with the other ranks: what comes before, all ranks find alike
  bool dry_run = false, print_config = false, help_recipe = false;
  std::string explain, dump_schema;
};

std::string joined(int argc, char** argv) {
  std::string out;
  for (int i = 0; i < argc; ++i) out += (i ? " " : "") + std::string(argv[i]);
  return out;
}

void declare(const Command& app, Arguments& a) {
  app.add_option("recipe", a.recipe, "Recipe, a YAML file (recipes/quickstart.yaml)");
  app.add_option("overrides", a.recipe_options.overrides, "section.key=value, values in YAML (train.max_steps=100)");
  app.add_option("--attn", a.recipe_options.attention, "Attention of every layer: full, moba, moba_naive or window");
  app.add_option("--hybrid-layers", a.recipe_options.hybrid_layers, "Layers with full attention: lastN, firstN, none, all or 0,3,7");
  app.add_option("--resume", a.train.resume,
                 "auto (go on from the newest checkpoint), never, or a checkpoint's folder (later checkpoints of the run are removed)")
      .show_default();
  app.add_option("--device", a.train.device, "auto, cpu or cuda").show_default();
  app.add_flag("--profile", a.train.profiled_steps, 5,
               "Take 5 steps after the first apart (--profile=20: 20 steps): a table of operations, and profile.json, a Chrome trace");
  app.add_flag("--dry-run", a.dry_run, "Check everything, print parameters, FLOPs, memory, disk and time, then stop");
  app.add_flag("--print-config", a.print_config, "Print every key with its resolved value, then stop");
  app.add_option("--explain", a.explain, "Explain one key of the recipe, then stop");
  app.add_flag("--help-recipe", a.help_recipe, "Print the table of all keys, then stop");
  app.add_option("--dump-schema", a.dump_schema, "json or markdown").hidden();
  app.footer(
      "Exit codes: 0 done, 2 bad recipe or usage, 3 corrupt input, 4 loss or gradient not finite, 5 input/output, 6 a rank lost, 75 "
      "stopped by a signal "
      "(resumable).");
}

// Documentation of the recipe format; nothing unless it was asked for.
std::optional<std::string> documentation(const Arguments& a) {
  if (a.help_recipe) return schema_help();
  if (!a.explain.empty()) return schema_explain(a.explain);
  if (a.dump_schema == "json") return schema_json();
  if (a.dump_schema == "markdown") return schema_markdown();
  MOBA_CHECK(a.dump_schema.empty(), "--dump-schema {}: must be json or markdown", a.dump_schema);
  return {};
}

ExitCode run(Arguments& a) {
  if (const auto text = documentation(a)) {
    std::fputs(text->c_str(), stdout);
    return ExitCode::done;
  }
  MOBA_CHECK(!a.recipe.empty(), "no recipe given; try: moba-train recipes/quickstart.yaml (or --help)");
  a.recipe_options.allow_missing_inputs = a.dry_run || a.print_config;
  a.recipe_options.resume = a.train.resume;
  Recipe recipe = read_recipe(a.recipe, a.recipe_options);
  if (a.dry_run) return dry_run(recipe, a.train);
  if (a.print_config) {
    if (missing_inputs(recipe).empty()) resolve_vocabulary(recipe);
    std::fputs(resolved_yaml(recipe).c_str(), stdout);
    return ExitCode::done;
  }
  check_started_processes(recipe, a.train.launch);
  a.started = true;
  return train(std::move(recipe), a.train);
}

// What every rank finds alike is printed by rank 0; what one alone ran into, by that one with its number.
void print_error(const Launch& launch, const char* what, bool alike) {
  if (alike && launch.rank > 0) return;
  const std::string who = alike || launch.size == 1 ? "" : fmt::format("rank {}: ", launch.rank);
  std::fprintf(stderr, "%s%s\n", who.c_str(), what);
}

ExitCode ended(Arguments& a) {
  constexpr const char* kLessMemory =
      "lower train.micro_batch_size or set train.activation_checkpointing: block (--dry-run predicts memory)";
  const Launch& launch = a.train.launch;
  try {
    return run(a);
  } catch (const SharedError& e) {
    print_error(launch, e.what(), true);
    return e.code();
  } catch (const OutOfMemory& e) {
    print_error(launch, fmt::format("{}; {}", e.what(), kLessMemory).c_str(), false);
    return e.code();
  } catch (const Error& e) {
    print_error(launch, e.what(), !a.started);
    return e.code();
  } catch (const std::bad_alloc&) {
    print_error(launch, fmt::format("out of memory; {}", kLessMemory).c_str(), false);
    return ExitCode::usage;
  } catch (const std::exception& e) {
    print_error(launch, (std::string("error: ") + e.what()).c_str(), false);
    return ExitCode::io;
  }
}

int parse_and_run(int argc, char** argv) {
  const CommandLine app{"Trains a language model with MoBA or full attention from a recipe.", "moba-train"};
  Arguments arguments;
  declare(app, arguments);
  arguments.train.command_line = joined(argc, argv);
  arguments.train.launch = read_launch();
  if (const auto code = app.parse(argc, argv)) return *code;
  return static_cast<int>(ended(arguments));
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("", [&] { return parse_and_run(argc, argv); });
}
