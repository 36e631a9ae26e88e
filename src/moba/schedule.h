// Which attention a layer uses at a point of the run: a pure function of (layer, tokens so far).
// Precedence: --hybrid-layers > --attn > full_attention_layers > layers > schedule > type; a layer pinned full stays full.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "src/moba/config.h"

namespace moba {

struct LayerOverride {
  std::vector<int64_t> layers;
  std::optional<kernels::AttentionType> type;
  std::optional<int64_t> chunk_size, topk, window;
  std::optional<bool> rope;
};

struct ScheduleStage {
  double until = 1;  // (0,1]: share of the run; > 1: tokens (integer)
  std::optional<kernels::AttentionType> type;
  std::optional<int64_t> chunk_size, topk, window;
};

struct AttentionPlan {
  AttentionConfig base;  // model.attention
  std::vector<int64_t> full_attention_layers;
  std::vector<LayerOverride> layers;
  std::vector<ScheduleStage> schedule;
  std::optional<AttentionConfig> command_line;  // --attn: type (and naive) for every layer; sizes from base/layers
  std::optional<std::string> hybrid_layers;     // --hybrid-layers lastN|firstN|none|all|0,3,7
};

struct PlannedAttention {
  AttentionConfig attention;
  bool rope = true;
};

// tokens_so_far: tokens consumed before the optimizer step; total_tokens: end of the run.
PlannedAttention attention_at(const AttentionPlan& plan, int64_t layer, int64_t num_layers, int64_t tokens_so_far, int64_t total_tokens);

// Index of the schedule stage in force (0 when the plan has no schedule).
int64_t schedule_stage(const AttentionPlan& plan, int64_t tokens_so_far, int64_t total_tokens);

// Throws on wrong layers, sizes, order of `until`, and options that exclude each other; checks every layer in every stage.
// total_tokens <= 0: not known yet, so shares and token counts are not compared with each other.
void validate(const AttentionPlan& plan, int64_t num_layers, int64_t total_tokens);

// Layers that "--hybrid-layers text" makes full. Error with the allowed forms.
std::vector<int64_t> parse_hybrid_layers(const std::string& text, int64_t num_layers);

}  // namespace moba
