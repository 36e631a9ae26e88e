// Verdicts on a table of attention mass, and the table as text and JSON.
#include "tools/moba_eval/recall_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace moba::eval {
namespace {

using nlohmann::ordered_json;

// Smallest n for which `share(n)` reaches what is wanted; all layers full keep everything.
template <class Share>
int64_t last_layers(int64_t layers, double keep, const Share& share) {
  for (int64_t n = 0; n < layers; ++n)
    if (share(n) >= keep) return n;
  return layers;
}

double worst_head(const std::vector<std::vector<MassKept>>& layers) {
  double worst = 1;
  for (const auto& heads : layers)
    for (const MassKept& head : heads) worst = std::min(worst, head.share());
  return worst;
}

void print_layers(const RecallTable& t) {
  fmt::print("\nkept by layer, % (smallest to largest head)\n{:>7}", "layer");
  for (const RecallSetting& s : t.settings) fmt::print(" {:>22}", fmt::format("S {} K {}", s.chunk_size, s.topk));
  fmt::print("\n");
  for (size_t layer = 0; layer < t.layers.size(); ++layer) {
    fmt::print("{:>7}", t.layers[layer]);
    for (size_t s = 0; s < t.settings.size(); ++s) {
      const auto& heads = t.heads[s][layer];
      const auto [low, high] =
          std::minmax_element(heads.begin(), heads.end(), [](const MassKept& a, const MassKept& b) { return a.share() < b.share(); });
      fmt::print(" {:>22}", fmt::format("{:.2f} ({:.1f}-{:.1f})", 100 * t.layer_share[s][layer], 100 * low->share(), 100 * high->share()));
    }
    fmt::print("\n");
  }
}

}  // namespace

void judge(RecallTable& t) {
  const auto layers = static_cast<int64_t>(t.layers.size());
  for (size_t s = 0; s < t.settings.size(); ++s) {
    std::vector<double> kept;
    MassKept total;
    for (const auto& heads : t.heads[s]) {
      MassKept sum;
      for (const MassKept& head : heads) sum.merge(head);
      kept.push_back(sum.share());
      total.merge(sum);
    }
    t.totals.push_back(total);
    t.last_by_mean.push_back(last_layers(layers, t.keep, [&](int64_t n) {
      double sum = static_cast<double>(n);
      for (int64_t l = 0; l < layers - n; ++l) sum += kept[static_cast<size_t>(l)];
      return sum / static_cast<double>(layers);
    }));
    t.last_by_layer.push_back(
        last_layers(layers, t.keep, [&](int64_t n) { return *std::min_element(kept.begin(), kept.begin() + (layers - n)); }));
    t.layer_share.push_back(std::move(kept));
  }
}

std::string last_text(const RecallTable& t, int64_t n) {
  if (n == 0) return "none";
  if (n == static_cast<int64_t>(t.layers.size())) return "all";
  if (t.model_layers == static_cast<int64_t>(t.layers.size())) return fmt::format("last{}", n);
  return fmt::format("{}", fmt::join(t.layers.end() - n, t.layers.end(), ","));
}

std::string what_was_looked_at(const RecallTable& t) {
  std::string out = fmt::format("checkpoint {}\ndata {}: the first {} of {} sequences of {} tokens\n", t.checkpoint, t.data, t.sequences,
                                t.available, t.sequence_length);
  out += fmt::format("keys and queries of the model with {}; blocks chosen by gate {}\n", t.attention, t.gate);
  if (const int64_t others = t.model_layers - static_cast<int64_t>(t.layers.size()))
    out += fmt::format("{} window layers stay as they are and are left out\n", others);
  return out;
}

void print_table(const RecallTable& t) {
  fmt::print("{}Shares of queries that skip something; the others (left out) lose nothing.\n\n", what_was_looked_at(t));
  fmt::print("{:>7} {:>4} {:>8} {:>6} {:>6} {:>7} {:>7}   {:<25} {}\n", "S", "K", "left out", "read", "kept", "(best)", "worst",
             fmt::format("layers full for {:g} % kept", 100 * t.keep), "loss with MoBA in all layers");
  fmt::print("{:>7} {:>4} {:>8} {:>6} {:>6} {:>7} {:>7}   {:<12} {:<12} {:>8} {:>10} {:>10}\n", "", "", "%", "%", "%", "%", "head %",
             "on average", "in each", "", "but avg.", "but each");
  for (size_t s = 0; s < t.settings.size(); ++s) {
    const MassKept& total = t.totals[s];
    fmt::print("{:>7} {:>4} {:>8.1f} {:>6.1f} {:>6.1f} {:>7.1f} {:>7.1f}   {:<12} {:<12} {:>8.4f} {:>10.4f} {:>10.4f}\n",
               t.settings[s].chunk_size, t.settings[s].topk, 100 * total.share_left_out(), 100 * total.share_read(), 100 * total.share(),
               100 * total.share_best(), 100 * worst_head(t.heads[s]), last_text(t, t.last_by_mean[s]), last_text(t, t.last_by_layer[s]),
               t.losses[s].moba, t.losses[s].hybrid_by_mean, t.losses[s].hybrid_by_layer);
  }
  fmt::print("loss with {}: {:.4f} nats per token on the same sequences. What further training would win back is in none of these.\n",
             t.attention, t.loss);
  print_layers(t);
}

ordered_json to_json(const RecallTable& t) {
  ordered_json out = {{"checkpoint", t.checkpoint},
                      {"data", t.data},
                      {"sequence_length", t.sequence_length},
                      {"sequences", t.sequences},
                      {"of", t.available},
                      {"attention", t.attention},
                      {"gate", t.gate},
                      {"keep", t.keep},
                      {"loss", t.loss},
                      {"layers", t.layers},
                      {"model_layers", t.model_layers}};
  out["settings"] = ordered_json::array();
  for (size_t s = 0; s < t.settings.size(); ++s) {
    const MassKept& total = t.totals[s];
    ordered_json setting = {{"moba_chunk_size", t.settings[s].chunk_size},
                            {"moba_topk", t.settings[s].topk},
                            {"queries_left_out", total.share_left_out()},
                            {"read", total.share_read()},
                            {"kept", total.share()},
                            {"best_possible", total.share_best()},
                            {"hybrid_layers_on_average", last_text(t, t.last_by_mean[s])},
                            {"hybrid_layers_in_every_layer", last_text(t, t.last_by_layer[s])},
                            {"loss_moba", t.losses[s].moba},
                            {"loss_hybrid_on_average", t.losses[s].hybrid_by_mean},
                            {"loss_hybrid_in_every_layer", t.losses[s].hybrid_by_layer}};
    setting["layers"] = ordered_json::array();
    for (size_t layer = 0; layer < t.layers.size(); ++layer) {
      ordered_json heads = ordered_json::array();
      for (const MassKept& head : t.heads[s][layer])
        heads.push_back({{"read", head.share_read()}, {"kept", head.share()}, {"best_possible", head.share_best()}});
      setting["layers"].push_back({{"layer", t.layers[layer]}, {"kept", t.layer_share[s][layer]}, {"heads", std::move(heads)}});
    }
    out["settings"].push_back(std::move(setting));
  }
  return out;
}

}  // namespace moba::eval
