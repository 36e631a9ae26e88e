#include "src/train/run_plan.h"

namespace moba {

nlohmann::json to_json(const Progress& p) { return {{"step", p.step}, {"tokens", p.tokens}, {"stage", p.stage}, {"samples", p.samples}}; }

Progress progress_from_json(const nlohmann::json& json) {
  return {json.at("step"), json.at("tokens"), json.at("stage"), json.at("samples")};
}

std::string attention_name(const std::vector<LayerAttention>& layers) {
  std::string out;
  std::vector<std::string> seen;
  for (const LayerAttention& layer : layers) {
    std::string name = attention_type_name(layer.attention.type);
    if (layer.attention.type == kernels::AttentionType::moba && layer.attention.naive) name = "moba_naive";
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) continue;
    seen.push_back(name);
    out += (out.empty() ? "" : "+") + name;
  }
  return out;
}

std::string describe_layers(const std::vector<LayerAttention>& layers) {
  const auto one = [](const LayerAttention& layer) {
    return describe(layer.attention) + (layer.attention.naive ? " (plain kernel)" : "") + (layer.rope ? "" : " without positions");
  };
  std::string out;
  for (size_t layer = 0; layer < layers.size();) {
    const std::string text = one(layers[layer]);
    size_t end = layer + 1;
    while (end < layers.size() && one(layers[end]) == text) ++end;
    out += fmt::format("{}layers {}-{} {}", out.empty() ? "" : "; ", layer, end - 1, text);
    layer = end;
  }
  return out;
}

RunPlan::RunPlan(const Recipe& recipe, const Progress& start) : recipe_(recipe) {
  const int64_t batch = recipe.global_batch_tokens;
  if (recipe.max_steps > 0) {
    total_steps_ = recipe.max_steps;
  } else {
    total_steps_ = start.step + (std::max<int64_t>(recipe.max_tokens - start.tokens, 0) + batch - 1) / batch;
  }
  total_tokens_ = start.tokens + (total_steps_ - start.step) * batch;
  for (const StageRecipe& stage : recipe.stages) {
    ScheduleStage end;
    end.until = stage.until;
    stage_clock_.schedule.push_back(end);
  }
  validate(recipe.attention, recipe.model.num_hidden_layers, total_tokens_);
}

bool RunPlan::enter_stage(Progress& progress) const {
  const int64_t stage = schedule_stage(stage_clock_, progress.tokens, total_tokens_);
  if (stage == progress.stage) return false;
  const StageRecipe &from = recipe_.stages.at(static_cast<size_t>(progress.stage)), &to = recipe_.stages.at(static_cast<size_t>(stage));
  const bool same_sampler = from.sequence_length == to.sequence_length && from.sources == to.sources;
  if (!same_sampler) progress.samples = 0;
  progress.stage = stage;
  return true;
}

std::vector<LayerAttention> RunPlan::layers_at(int64_t tokens) const {
  const int64_t count = recipe_.model.num_hidden_layers;
  std::vector<LayerAttention> out;
  for (int64_t layer = 0; layer < count; ++layer) {
    const PlannedAttention planned = attention_at(recipe_.attention, layer, count, tokens, total_tokens_);
    out.push_back({planned.attention, planned.rope});
  }
  return out;
}

StepPlan RunPlan::at(const Progress& progress) const {
  const StageRecipe& stage = recipe_.stages.at(static_cast<size_t>(progress.stage));
  StepPlan out;
  out.sequence_length = stage.sequence_length;
  out.forward.layers = layers_at(progress.tokens);
  out.forward.checkpoint_blocks = recipe_.checkpoint_blocks;
  out.forward.rope_scaling = stage.rope_scaling;
  out.attention = attention_name(out.forward.layers);
  out.learning_rate = learning_rate(recipe_.lr_scheduler, recipe_.optimizer.lr, progress.step + 1, total_steps_);
  out.flops_per_token = model_flops_per_token(recipe_.model, out.forward.layers, stage.sequence_length);
  return out;
}

int64_t RunPlan::samples_per_step(int64_t stage) const {
  return recipe_.global_batch_tokens / recipe_.stages.at(static_cast<size_t>(stage)).sequence_length;
}

void RunPlan::advance(Progress& progress) const {
  progress.step += 1;
  progress.tokens += recipe_.global_batch_tokens;
  progress.samples += samples_per_step(progress.stage);
}

}  // namespace moba
