#include "src/moba/schedule.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/common/check.h"

namespace moba {
namespace {

using kernels::AttentionType;

bool contains(const std::vector<int64_t>& values, int64_t value) { return std::find(values.begin(), values.end(), value) != values.end(); }

// First token count at which the stage is over. The factor absorbs the rounding of until * total (0.07 * 100 > 7 in binary).
int64_t end_of_stage(double until, int64_t total_tokens) {
  if (until > 1) return static_cast<int64_t>(until);
  return static_cast<int64_t>(std::ceil(until * static_cast<double>(total_tokens) * (1 - 1e-12)));
}

// LayerOverride and ScheduleStage share these members.
template <class Override>
void apply(const Override& o, AttentionConfig& config) {
  if (o.type) config.type = *o.type;
  if (o.chunk_size) config.moba.chunk_size = *o.chunk_size;
  if (o.topk) config.moba.topk = *o.topk;
  if (o.window) config.window = *o.window;
}

// Layers forced to full by --hybrid-layers and the type of the others.
void apply_command_line(const AttentionPlan& plan, int64_t layer, int64_t num_layers, AttentionConfig& config) {
  if (plan.command_line) {
    config.type = plan.command_line->type;
    config.naive = plan.command_line->naive;
  }
  if (!plan.hybrid_layers) return;
  if (!plan.command_line) config.type = AttentionType::moba;
  if (contains(parse_hybrid_layers(*plan.hybrid_layers, num_layers), layer)) config.type = AttentionType::full;
}

PlannedAttention planned(const AttentionPlan& plan, int64_t layer, int64_t num_layers, const ScheduleStage* stage) {
  PlannedAttention result{plan.base, true};
  AttentionConfig& config = result.attention;
  if (stage) apply(*stage, config);
  for (const LayerOverride& o : plan.layers) {
    if (!contains(o.layers, layer)) continue;
    apply(o, config);
    result.rope = o.rope.value_or(result.rope);
  }
  if (contains(plan.full_attention_layers, layer)) config.type = AttentionType::full;
  apply_command_line(plan, layer, num_layers, config);
  return result;
}

void check_layers(const char* key, const std::vector<int64_t>& layers, int64_t num_layers) {
  for (const int64_t layer : layers)
    MOBA_CHECK(layer >= 0 && layer < num_layers, "{}: layer {} does not exist, the model has layers 0 .. {}", key, layer, num_layers - 1);
}

void check_schedule(const std::vector<ScheduleStage>& schedule, int64_t total_tokens) {
  const char* kKey = "model.attention.schedule";
  for (size_t i = 0; i < schedule.size(); ++i) {
    const double until = schedule[i].until;
    const bool last = i + 1 == schedule.size();
    MOBA_CHECK(std::isfinite(until) && until > 0, "{}[{}].until must be a share in (0, 1] or a number of tokens > 1, got {}", kKey, i,
               until);
    MOBA_CHECK(until <= 1 || until == std::floor(until), "{}[{}].until above 1 is a number of tokens and must be an integer, got {}", kKey,
               i, until);
    MOBA_CHECK(!last || until == 1, "{}[{}].until: the last stage must end with the run, write until: 1 (got {})", kKey, i, until);
    MOBA_CHECK(last || until != 1, "{}[{}].until is 1 (the end of the run), but stages follow it", kKey, i);
    if (i == 0) continue;
    const double before = schedule[i - 1].until;
    const bool same_unit = (before > 1) == (until > 1);
    const bool ordered =
        same_unit ? before < until : total_tokens <= 0 || end_of_stage(before, total_tokens) < end_of_stage(until, total_tokens);
    MOBA_CHECK(ordered, "{}[{}].until must be later than the stage before it: {} is not after {}{}", kKey, i, until, before,
               same_unit ? "" : fmt::format(" in a run of {} tokens", total_tokens));
  }
}

int64_t parse_number(std::string_view digits, const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  MOBA_CHECK(!digits.empty() && error == std::errc() && end == digits.data() + digits.size() && digits[0] != '-',
             "--hybrid-layers: '{}' is not understood; allowed: lastN, firstN, none, all, or layer numbers such as 0,3,7", text);
  return value;
}

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> layers;
  for (int64_t i = begin; i < end; ++i) layers.push_back(i);
  return layers;
}

}  // namespace

int64_t schedule_stage(const AttentionPlan& plan, int64_t tokens_so_far, int64_t total_tokens) {
  const auto& stages = plan.schedule;
  size_t i = 0;
  while (i + 1 < stages.size() && tokens_so_far >= end_of_stage(stages[i].until, total_tokens)) ++i;
  return static_cast<int64_t>(i);
}

PlannedAttention attention_at(const AttentionPlan& plan, int64_t layer, int64_t num_layers, int64_t tokens_so_far, int64_t total_tokens) {
  MOBA_CHECK(layer >= 0 && layer < num_layers, "attention_at: layer {} is not in 0 .. {}", layer, num_layers - 1);
  const int64_t stage = schedule_stage(plan, tokens_so_far, total_tokens);
  return planned(plan, layer, num_layers, plan.schedule.empty() ? nullptr : &plan.schedule[static_cast<size_t>(stage)]);
}

void validate(const AttentionPlan& plan, int64_t num_layers, int64_t total_tokens) {
  check_layers("model.attention.full_attention_layers", plan.full_attention_layers, num_layers);
  for (size_t i = 0; i < plan.layers.size(); ++i)
    check_layers(fmt::format("model.attention.layers[{}].layers", i).c_str(), plan.layers[i].layers, num_layers);
  check_schedule(plan.schedule, total_tokens);
  if (plan.hybrid_layers) {
    MOBA_CHECK(
        plan.full_attention_layers.empty(),
        "--hybrid-layers (command line) and model.attention.full_attention_layers (recipe) both name the full layers; use one of them");
    MOBA_CHECK(!plan.command_line || plan.command_line->type == AttentionType::moba,
               "--hybrid-layers makes some layers full and leaves the others MoBA; --attn {} together with it is not allowed (use --attn "
               "moba or moba_naive)",
               attention_type_name(plan.command_line->type));
    parse_hybrid_layers(*plan.hybrid_layers, num_layers);
  }
  const size_t stages = std::max<size_t>(plan.schedule.size(), 1);
  for (size_t s = 0; s < stages; ++s)
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      const ScheduleStage* stage = plan.schedule.empty() ? nullptr : &plan.schedule[s];
      validate(planned(plan, layer, num_layers, stage).attention, "model.attention");
    }
}

std::vector<int64_t> parse_hybrid_layers(const std::string& text, int64_t num_layers) {
  if (text == "none") return {};
  if (text == "all") return range(0, num_layers);
  for (const char* word : {"last", "first"}) {
    if (!text.starts_with(word)) continue;
    const int64_t n = parse_number(std::string_view(text).substr(std::string_view(word).size()), text);
    MOBA_CHECK(n <= num_layers, "--hybrid-layers {}: the model has {} layers, so N must be in 0 .. {}", text, num_layers, num_layers);
    return word[0] == 'l' ? range(num_layers - n, num_layers) : range(0, n);
  }
  std::vector<int64_t> layers;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const int64_t layer = parse_number(std::string_view(text).substr(begin, comma - begin), text);
    MOBA_CHECK(layer < num_layers, "--hybrid-layers {}: layer {} does not exist, the model has layers 0 .. {}", text, layer,
               num_layers - 1);
    MOBA_CHECK(!contains(layers, layer), "--hybrid-layers {}: layer {} is named twice", text, layer);
    layers.push_back(layer);
    begin = comma + 1;
  }
  std::sort(layers.begin(), layers.end());
  return layers;
}

}  // namespace moba
