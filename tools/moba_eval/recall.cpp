// moba-eval recall: how much of a model's attention mass MoBA would keep, per layer and head, before anybody switches it.
#include "src/moba/recall.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/interop/hashed_file.h"
#include "src/train/batch.h"
#include "tools/moba_eval/commands.h"
#include "tools/moba_eval/recall_picture.h"

namespace moba::eval {
namespace {

using nlohmann::ordered_json;

RecallSetting parse_setting(const std::string& text) {
  RecallSetting out;
  int used = 0;
  long long chunk_size = 0, topk = 0;
  const bool good = std::sscanf(text.c_str(), "%lld,%lld%n", &chunk_size, &topk, &used) == 2 && static_cast<size_t>(used) == text.size();
  MOBA_CHECK(good && chunk_size >= 1 && topk >= 1,
             "--grid {}: must be S,K: block size and blocks read, both at least 1 (--grid 128,3 64,6)", text);
  out.chunk_size = chunk_size;
  out.topk = topk;
  return out;
}

Sampler make_sampler(const LoadedModel& model, const RecallOptions& o) {
  SamplerConfig sampling;
  sampling.sources = {{o.data, 1}};
  sampling.sequence_length = o.sequence_length > 0 ? o.sequence_length : model.description.model.max_position_embeddings;
  sampling.shuffle = false;
  return Sampler(sampling);
}

// Smallest n for which `share(n)` reaches what is wanted; all layers full keep everything.
template <class Share>
int64_t last_layers(int64_t layers, double keep, const Share& share) {
  for (int64_t n = 0; n < layers; ++n)
    if (share(n) >= keep) return n;
  return layers;
}

void judge(RecallTable& table, double keep) {
  const auto layers = static_cast<int64_t>(table.heads.front().size());
  for (size_t s = 0; s < table.settings.size(); ++s) {
    std::vector<double> kept;
    for (const auto& heads : table.heads[s]) {
      MassKept sum;
      for (const MassKept& head : heads) sum.merge(head);
      kept.push_back(sum.share());
      table.totals[s].merge(sum);
    }
    table.last_by_mean.push_back(last_layers(layers, keep, [&](int64_t n) {
      double sum = static_cast<double>(n);
      for (int64_t l = 0; l < layers - n; ++l) sum += kept[static_cast<size_t>(l)];
      return sum / static_cast<double>(layers);
    }));
    table.last_by_layer.push_back(
        last_layers(layers, keep, [&](int64_t n) { return *std::min_element(kept.begin(), kept.begin() + (layers - n)); }));
    table.layer_share.push_back(std::move(kept));
  }
}

std::string last_text(int64_t n, int64_t layers) { return n == 0 ? "none" : n == layers ? "all" : fmt::format("last{}", n); }

void print_table(const RecallTable& t, double keep) {
  const auto layers = static_cast<int64_t>(t.layer_share.front().size());
  fmt::print("{:>7} {:>4} {:>6} {:>8} {:>8} {:>10} {:>8}   layers to keep full for {:g} %\n", "S", "K", "read", "kept", "(best)", "where",
             "worst", 100 * keep);
  fmt::print("{:>7} {:>4} {:>6} {:>8} {:>8} {:>10} {:>8}   {:<12} {}\n", "", "", "%", "%", "%", "skipping", "head", "on average",
             "in every layer");
  for (size_t s = 0; s < t.settings.size(); ++s) {
    double worst = 1;
    for (const auto& heads : t.heads[s])
      for (const MassKept& head : heads) worst = std::min(worst, head.share());
    const MassKept& total = t.totals[s];
    fmt::print("{:>7} {:>4} {:>6.1f} {:>8.2f} {:>8.2f} {:>10.2f} {:>8.2f}   {:<12} {}\n", t.settings[s].chunk_size, t.settings[s].topk,
               100 * total.share_read(), 100 * total.share(), 100 * total.share_best(), 100 * total.share_skipping(), 100 * worst,
               last_text(t.last_by_mean[s], layers), last_text(t.last_by_layer[s], layers));
  }
  fmt::print("\nkept by layer, % (smallest to largest head)\n{:>7}", "layer");
  for (const RecallSetting& s : t.settings) fmt::print(" {:>22}", fmt::format("S {} K {}", s.chunk_size, s.topk));
  fmt::print("\n");
  for (int64_t layer = 0; layer < layers; ++layer) {
    fmt::print("{:>7}", layer);
    for (size_t s = 0; s < t.settings.size(); ++s) {
      const auto& heads = t.heads[s][static_cast<size_t>(layer)];
      const auto [low, high] =
          std::minmax_element(heads.begin(), heads.end(), [](const MassKept& a, const MassKept& b) { return a.share() < b.share(); });
      fmt::print(" {:>22}", fmt::format("{:.2f} ({:.1f}-{:.1f})", 100 * t.layer_share[s][static_cast<size_t>(layer)], 100 * low->share(),
                                        100 * high->share()));
    }
    fmt::print("\n");
  }
}

ordered_json to_json(const RecallTable& t, const RecallOptions& o, int64_t length, int64_t sequences) {
  const auto layers = static_cast<int64_t>(t.layer_share.front().size());
  ordered_json out = {{"data", o.data}, {"sequence_length", length}, {"sequences", sequences}, {"gate", o.gate}, {"keep", o.keep}};
  out["settings"] = ordered_json::array();
  for (size_t s = 0; s < t.settings.size(); ++s) {
    const MassKept& total = t.totals[s];
    ordered_json setting = {{"moba_chunk_size", t.settings[s].chunk_size},
                            {"moba_topk", t.settings[s].topk},
                            {"read", total.share_read()},
                            {"kept", total.share()},
                            {"kept_where_skipping", total.share_skipping()},
                            {"best_possible", total.share_best()},
                            {"hybrid_layers_on_average", last_text(t.last_by_mean[s], layers)},
                            {"hybrid_layers_in_every_layer", last_text(t.last_by_layer[s], layers)}};
    setting["layers"] = ordered_json::array();
    for (int64_t layer = 0; layer < layers; ++layer) {
      ordered_json heads = ordered_json::array();
      for (const MassKept& head : t.heads[s][static_cast<size_t>(layer)])
        heads.push_back({{"kept", head.share()}, {"kept_where_skipping", head.share_skipping()}, {"best_possible", head.share_best()}});
      setting["layers"].push_back({{"layer", layer}, {"kept", t.layer_share[s][static_cast<size_t>(layer)]}, {"heads", std::move(heads)}});
    }
    out["settings"].push_back(std::move(setting));
  }
  return out;
}

}  // namespace

void run_recall(const ModelOptions& model_options, const RecallOptions& options) {
  RecallTable table;
  for (const std::string& text : options.grid) table.settings.push_back(parse_setting(text));
  MOBA_CHECK(options.keep > 0 && options.keep <= 1, "--keep {}: must be above 0 and at most 1", options.keep);
  const kernels::Gate gate = gate_from_name(options.gate);
  ModelOptions opened = model_options;
  // Before a switch the model is a full one; what later layers see depends on what earlier ones do.
  if (!opened.attention && !opened.hybrid_layers) opened.hybrid_layers = "all";
  LoadedModel model = open_model(opened);
  model.check_tokenizer_of(options.data);
  const Sampler sampler = make_sampler(model, options);
  const int64_t count = std::min(options.sequences, sampler.samples_per_epoch());
  MOBA_CHECK(count >= 1, "{} holds less than one sequence of that length; lower --sequence-length", options.data);

  const auto layers = static_cast<size_t>(model.description.model.num_hidden_layers),
             heads = static_cast<size_t>(model.description.model.num_attention_heads);
  table.heads.assign(table.settings.size(), std::vector<std::vector<MassKept>>(layers, std::vector<MassKept>(heads)));
  table.totals.resize(table.settings.size());
  const bool show = ::isatty(STDERR_FILENO) != 0;
  int64_t length = 0;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<Sample> samples = {sampler.sample(i)};
    const TokenBatch batch = pack_batch(samples);
    length = batch.tokens.numel();
    check_vocabulary(batch, model.description.model.vocab_size);
    ForwardOptions forward = model.forward();
    forward.on_heads = [&](int64_t layer, const Tensor& q, const Tensor& k) {
      if (show) fmt::print(stderr, "\rsequence {} of {}, layer {} of {} ", i + 1, count, layer + 1, layers);
      const auto kept = mass_kept(q, k, batch.sequences, table.settings, gate);
      for (size_t s = 0; s < kept.size(); ++s)
        for (size_t h = 0; h < heads; ++h) table.heads[s][static_cast<size_t>(layer)][h].merge(kept[s][h]);
    };
    const NoGrad no_grad;
    model.transformer->hidden(batch, forward);
  }
  if (show) fmt::print(stderr, "\r{:60}\r", "");
  judge(table, options.keep);
  if (!options.svg.empty()) write_hashed_file(options.svg, recall_picture(table, length));
  if (options.json) return fmt::print("{}\n", to_json(table, options, length, count).dump());
  fmt::print("attention mass kept by MoBA (gate {}) over {} sequences of {} tokens; keys and queries of the model with {}\n", options.gate,
             count, length, opened.hybrid_layers == "all" ? "full attention" : "the attention asked for");
  print_table(table, options.keep);
}

}  // namespace moba::eval
