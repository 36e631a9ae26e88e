// A recipe as the rest of the trainer sees it: read, checked and typed. Reading is strict and reports every error at once.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/data/sampler.h"
#include "src/layers/config.h"
#include "src/moba/schedule.h"
#include "src/optim/optimizer.h"
#include "src/train/yaml_tree.h"

namespace moba {

// One context-length stage of the run. Without train.stages there is exactly one.
struct StageRecipe {
  int64_t sequence_length = 0;  // T
  double until = 1;             // as ScheduleStage::until
  kernels::RopeScaling rope_scaling;
  std::vector<SamplerConfig::Source> sources;
};

enum class Precision : uint8_t { automatic, bf16, fp32 };

struct Recipe {
  std::string file;    // as given
  std::string source;  // the file's bytes, for the run's folder
  YamlNode tree;       // every key, defaults filled

  std::string name, output_dir;
  uint64_t seed = 1;

  TransformerConfig model;  // vocab_size 0 = of the data, set by resolve_model
  std::string init_from;    // empty: random weights
  AttentionPlan attention;

  std::vector<StageRecipe> stages;  // at least one
  int64_t global_batch_tokens = 0;
  int64_t micro_batch_size = 0;           // 0 = auto
  int64_t max_tokens = 0, max_steps = 0;  // exactly one is above 0
  Precision precision = Precision::automatic;
  double grad_clip = 1;  // 0: none
  bool checkpoint_blocks = false;
  bool skip_nonfinite = false;

  OptimizerConfig optimizer;
  LrScheduleConfig lr_scheduler;

  std::vector<std::string> validation;
  Packing packing = Packing::concat;
  bool document_mask = false;
  bool sft = false, train_on_prompt = false;
  TooLong too_long = TooLong::drop;

  int64_t eval_interval = 0, eval_max_tokens = 0, eval_trailing = 0, eval_bins = 0;  // 0: none, all, none, none
  int64_t checkpoint_interval = 0, keep_last = 0;                                    // 0: none, all
  int64_t logging_interval = 1;
  bool tensorboard = true;

  int64_t data_ranks = 1;  // processes of the run
  int64_t lanes = 0;       // of the gradient sum, over all ranks; 0 = open, see resolve_lanes
  int zero_stage = 0;
  double time_limit = 600;  // seconds that a rank waits for the others

  std::string folder() const { return output_dir + "/" + name; }
};

// What the command line adds to a recipe file.
struct RecipeOptions {
  std::vector<std::string> overrides;        // "section.key=value"
  std::optional<std::string> attention;      // --attn
  std::optional<std::string> hybrid_layers;  // --hybrid-layers
  bool allow_missing_inputs = false;         // --dry-run and --print-config do without the data
  std::string resume = "never";              // --resume; init_from must be there unless a checkpoint may take its place
};

// Throws one Error(usage) whose text is every error, a line each.
Recipe read_recipe(const std::string& file, const RecipeOptions& options);

// One line for each data file or init_from folder that is not there, with the command that makes it. goes_on: from a checkpoint, which
// has the weights.
std::vector<std::string> missing_inputs(const Recipe& recipe, bool goes_on = false);

// Sets model.vocab_size from the data where the recipe leaves it open, or checks it against the data. Files that are missing are
// passed over; Error if the size stays unknown.
void resolve_vocabulary(Recipe& recipe);

// The complete recipe as YAML: what --print-config shows and resolved.yaml keeps. --attn and --hybrid-layers are worked into
// model.attention, so that the file alone gives the same model; moba_naive, which has no key, is named in a comment.
std::string resolved_yaml(const Recipe& recipe);

// --attn NAME as attention of every layer; sizes come from the recipe. Error with the allowed names.
AttentionConfig parse_attention_option(const std::string& name, const AttentionConfig& base);

}  // namespace moba
