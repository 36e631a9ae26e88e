#include "src/train/data_stream.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace moba {
namespace {

std::string content_hash(const std::string& path) { return fmt::format("{:016x}", TokenDataset(path).info().content_hash); }

nlohmann::ordered_json sources_fingerprint(const std::vector<SamplerConfig::Source>& sources) {
  auto out = nlohmann::ordered_json::array();
  for (const auto& source : sources) out.push_back({content_hash(source.path), source.weight});
  return out;
}

}  // namespace

void check_loss_mask(const Recipe& recipe, const TokenDataset& data) {
  MOBA_CHECK(!recipe.sft || recipe.train_on_prompt || data.info().has_loss_mask,
             "{}: has no loss mask, which task: sft needs; make it with moba-data prepare --sft, or set sft.train_on_prompt: true",
             data.path());
}

SamplerConfig stage_sampler(const Recipe& recipe, size_t stage) {
  SamplerConfig config;
  config.sources = recipe.stages[stage].sources;
  config.sequence_length = recipe.stages[stage].sequence_length;
  config.seed = recipe.seed;
  config.packing = recipe.packing;
  config.document_mask = recipe.document_mask;
  config.too_long = recipe.too_long;
  config.ignore_loss_mask = recipe.train_on_prompt;
  return config;
}

DataStream::DataStream(const Recipe& recipe) {
  for (size_t stage = 0; stage < recipe.stages.size(); ++stage) {
    const auto sampler = std::make_shared<const Sampler>(stage_sampler(recipe, stage));
    for (const TokenDataset& data : sampler->datasets()) check_loss_mask(recipe, data);
    stages_.push_back(sampler);
  }
}

std::vector<Sample> DataStream::next(const Progress& progress, const SampleShare& share) {
  if (!loader_ || loader_stage_ != progress.stage) {
    loader_.reset();  // its thread ends before the next one starts
    loader_ = std::make_unique<Loader>(stages_.at(static_cast<size_t>(progress.stage)), progress.samples, 2 * share.count, share);
    loader_stage_ = progress.stage;
  }
  MOBA_ASSERT(loader_->position() == progress.samples + share.begin);
  std::vector<Sample> out;
  for (int64_t i = 0; i < share.count; ++i) out.push_back(loader_->next());
  return out;
}

nlohmann::ordered_json data_fingerprint(const Recipe& recipe) {
  nlohmann::ordered_json out;
  out["train"] = nlohmann::ordered_json::array();
  for (const StageRecipe& stage : recipe.stages) out["train"].push_back(sources_fingerprint(stage.sources));
  out["validation"] = nlohmann::ordered_json::array();
  for (const std::string& path : recipe.validation) out["validation"].push_back(content_hash(path));
  const DatasetInfo info = TokenDataset(recipe.stages.front().sources.front().path).info();
  out["tokenizer"] = info.tokenizer_sha256;
  return out;
}

}  // namespace moba
