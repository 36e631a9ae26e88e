// moba-eval loss: nats per token over a dataset, by position and trailing, and what the router chose.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "src/train/batch.h"
#include "src/train/evaluate.h"
#include "tools/moba_eval/commands.h"

namespace moba::eval {
namespace {

using nlohmann::ordered_json;

// The picture of block use is an average over this many sequences at most.
constexpr int64_t kPictureSequences = 8;

EvaluationConfig evaluation_config(const LoadedModel& model, const LossOptions& o) {
  EvaluationConfig config;
  config.files = {o.data};
  config.sequence_length = o.sequence_length > 0 ? o.sequence_length : model.description.model.max_position_embeddings;
  config.by_example = o.task.empty() ? TokenDataset(o.data).info().has_loss_mask : o.task == "sft";
  config.packing = config.by_example ? Packing::best_fit : Packing::concat;
  config.document_mask = o.document_mask || config.by_example;
  config.max_tokens = o.max_tokens;
  config.trailing = o.trailing;
  config.bins = o.bins;
  return config;
}

// Per MoBA layer and head: share of the queries of block i that read block j, [N, N].
ordered_json block_use_json(LoadedModel& model, const EvaluationConfig& evaluation) {
  SamplerConfig sampling;  // rows of one sequence each: pictures of unequal pieces have no average
  sampling.sources = {{evaluation.files.front(), 1}};
  sampling.sequence_length = evaluation.sequence_length;
  sampling.shuffle = false;
  const Sampler sampler(sampling);
  const int64_t count = std::min(kPictureSequences, sampler.samples_per_epoch());

  std::map<int64_t, BlockUse> use;
  std::map<int64_t, RoutingStatistics> statistics;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<Sample> samples = {sampler.sample(i)};
    const TokenBatch batch = pack_batch(samples);
    ForwardOptions forward = model.forward();
    forward.on_selection = [&](int64_t layer, const Tensor& selected) {
      const int64_t chunk_size = model.layers[static_cast<size_t>(layer)].attention.moba.chunk_size;
      const BlockUse one = block_use(selected, batch.sequences, chunk_size);
      BlockUse& sum = use[layer];
      if (sum.share.empty()) sum = {one.heads, one.blocks, std::vector<float>(one.share.size())};
      for (size_t j = 0; j < one.share.size(); ++j) sum.share[j] += one.share[j] / static_cast<float>(count);
      statistics[layer].add(layer, selected, batch.sequences, chunk_size);
    };
    const NoGrad no_grad;
    model.transformer->hidden(batch, forward);
  }

  ordered_json layers = ordered_json::array();
  for (const auto& [layer, sum] : use) {
    ordered_json heads = ordered_json::array();
    for (int64_t head = 0; head < sum.heads; ++head) {
      ordered_json rows = ordered_json::array();
      for (int64_t i = 0; i < sum.blocks; ++i) {
        ordered_json row = ordered_json::array();
        for (int64_t j = 0; j < sum.blocks; ++j) row.push_back(sum.at(head, i, j));
        rows.push_back(std::move(row));
      }
      heads.push_back(std::move(rows));
    }
    const HeadRouting total = statistics.at(layer).layer_total(layer);
    layers.push_back({{"layer", layer},
                      {"chunk_size", model.layers[static_cast<size_t>(layer)].attention.moba.chunk_size},
                      {"own_share", total.own_share()},
                      {"mean_distance_blocks", total.mean_distance_blocks()},
                      {"heads", std::move(heads)}});
  }
  return {{"sequences", count}, {"sequence_length", evaluation.sequence_length}, {"layers", std::move(layers)}};
}

ordered_json result_json(const EvaluationResult& r, const EvaluationConfig& config) {
  ordered_json out = {{"loss", r.loss},
                      {"bits_per_byte", r.bits_per_byte},
                      {"targets", r.targets},
                      {"sequence_length", config.sequence_length},
                      {config.by_example ? "examples" : "windows", r.windows}};
  if (r.trailing_loss) out["trailing_loss"] = *r.trailing_loss;
  if (!r.position_loss.empty()) out["position_loss"] = r.position_loss;
  return out;
}

void print_result(const EvaluationResult& r, const EvaluationConfig& config) {
  fmt::print("loss           {:.4f} nats per token ({:.4f} bits per byte) over {} targets, sequences of {}\n", r.loss, r.bits_per_byte,
             r.targets, config.sequence_length);
  if (config.trailing > 0 || config.bins > 0) fmt::print("{}   {}\n", config.by_example ? "examples    " : "full windows", r.windows);
  if (r.trailing_loss)
    fmt::print("trailing loss  {:.4f} over the last {} {}\n", *r.trailing_loss, config.trailing,
               config.by_example ? "counted targets of each example" : "tokens of each window");
  const auto bins = static_cast<int64_t>(r.position_loss.size());
  for (int64_t i = 0; i < bins; ++i)
    fmt::print("  tokens {:>7} to {:>7}  {:.4f}\n", (i * config.sequence_length + bins - 1) / bins,
               ((i + 1) * config.sequence_length + bins - 1) / bins - 1, r.position_loss[static_cast<size_t>(i)]);
  if (r.routing.empty()) return;
  const HeadRouting total = r.routing.total();
  fmt::print("routing        own block {:.1f} % of the choices; chosen history lies {:.1f} blocks back on average\n",
             100 * total.own_share(), total.mean_distance_blocks());
}

}  // namespace

void run_loss(const ModelOptions& model_options, const LossOptions& options) {
  LoadedModel model = open_model(model_options);
  model.check_tokenizer_of(options.data);
  const EvaluationConfig config = evaluation_config(model, options);
  MOBA_CHECK(config.sequence_length >= 1, "--sequence-length must be >= 1, got {}", config.sequence_length);
  MOBA_CHECK(config.trailing <= config.sequence_length, "--trailing {} is longer than the sequences of {}", config.trailing,
             config.sequence_length);
  MOBA_CHECK(config.bins <= config.sequence_length, "--bins {} is more than the {} positions", config.bins, config.sequence_length);
  const bool show = ::isatty(STDERR_FILENO) != 0;
  const auto result = evaluate(*model.transformer, model.forward(), config, {}, [show](double done) {
    if (show) fmt::print(stderr, "\revaluating {:3.0f} %{}", 100 * done, done >= 1 ? "\r                \r" : "");
  });
  if (!options.json) return print_result(*result, config);
  ordered_json out = result_json(*result, config);
  if (options.routing) out["routing"] = block_use_json(model, config);
  fmt::print("{}\n", out.dump());
}

}  // namespace moba::eval
