// What every optimizer step of a run does: a pure function of the recipe and a few integers, so that a resumed run takes the very
// steps that the undisturbed one would have taken.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "src/layers/transformer.h"
#include "src/train/recipe.h"

namespace moba {

// Where a run stands between two optimizer steps. Checkpoints keep it.
struct Progress {
  int64_t step = 0;     // finished updates
  int64_t tokens = 0;   // consumed
  int64_t stage = 0;    // of train.stages
  int64_t samples = 0;  // consumed of this stage's sampler, by the stages before it too where they share it
  bool operator==(const Progress&) const = default;
};
nlohmann::json to_json(const Progress& progress);
Progress progress_from_json(const nlohmann::json& json);

struct StepPlan {
  int64_t sequence_length = 0;
  ForwardOptions forward;
  std::string attention;  // "moba", "full", "moba+full" where layers differ
  double learning_rate = 0;
  double flops_per_token = 0;  // forward and backward, nothing recomputed
};

class RunPlan {
 public:
  // `start` fixes where the run ends if global_batch_tokens changed since the last start.
  RunPlan(const Recipe& recipe, const Progress& start);

  int64_t total_steps() const { return total_steps_; }
  int64_t total_tokens() const { return total_tokens_; }
  bool finished(const Progress& progress) const { return progress.step >= total_steps_; }
  // Before a step: enters the stage that its tokens so far call for. True if the stage changed. A stage with the sequence length
  // and the files of the one before it goes on where that one stopped; any other begins with its sampler's first sample.
  bool enter_stage(Progress& progress) const;
  StepPlan at(const Progress& progress) const;
  void advance(Progress& progress) const;
  int64_t samples_per_step(int64_t stage) const;

 private:
  std::vector<LayerAttention> layers_at(int64_t tokens) const;

  const Recipe recipe_;        // a copy: a plan outlives moves of its run
  AttentionPlan stage_clock_;  // only its schedule is used: the ends of train.stages
  int64_t total_steps_ = 0, total_tokens_ = 0;
};

// "moba", "moba_naive", "full", "window"; distinct names joined by + in order of first layer.
std::string attention_name(const std::vector<LayerAttention>& layers);

// "layers 0-1 full; layers 2-3 moba S 512 K 3 without positions"
std::string describe_layers(const std::vector<LayerAttention>& layers);

}  // namespace moba
