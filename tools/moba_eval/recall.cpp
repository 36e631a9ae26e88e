// moba-eval recall: how much of a model's attention mass MoBA would keep, per layer and head, and what that costs, before anybody switches
// it.
#include "src/moba/recall.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "src/interop/hashed_file.h"
#include "src/train/batch.h"
#include "tools/moba_eval/commands.h"
#include "tools/moba_eval/recall_table.h"

namespace moba::eval {
namespace {

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

// Before a switch the model is a full one; what later layers see depends on what earlier ones do. Window layers are no part of a switch.
std::string look_with_full_attention(LoadedModel& model) {
  for (LayerAttention& layer : model.layers)
    if (layer.attention.type != kernels::AttentionType::window) layer.attention.type = kernels::AttentionType::full;
  return "full attention";
}

std::vector<int64_t> layers_without_window(const LoadedModel& model) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < model.layers.size(); ++i)
    if (model.layers[i].attention.type != kernels::AttentionType::window) out.push_back(static_cast<int64_t>(i));
  MOBA_CHECK(!out.empty(), "{}: every layer attends to a window; there is no full attention whose mass could be lost", model.dir);
  return out;
}

// MoBA in the layers looked at, but for the last `full` of them.
std::vector<LayerAttention> with_moba(const LoadedModel& model, const RecallTable& table, const RecallSetting& s, kernels::Gate gate,
                                      int64_t full) {
  std::vector<LayerAttention> out = model.layers;
  const auto count = static_cast<int64_t>(table.layers.size());
  for (int64_t i = 0; i < count; ++i) {
    AttentionConfig& attention = out[static_cast<size_t>(table.layers[static_cast<size_t>(i)])].attention;
    attention.type = i < count - full ? kernels::AttentionType::moba : kernels::AttentionType::full;
    attention.moba.chunk_size = s.chunk_size;
    attention.moba.topk = s.topk;
    attention.moba.gate = gate;
  }
  return out;
}

// Nats per counted target over the batches.
double loss_with(const LoadedModel& model, const std::vector<TokenBatch>& batches, const std::vector<LayerAttention>& layers) {
  double sum = 0, targets = 0;
  ForwardOptions forward = model.forward();
  forward.layers = layers;
  const NoGrad no_grad;
  for (const TokenBatch& batch : batches) {
    sum += model.transformer->loss(batch, forward, 1.0).value().item();
    const int32_t* target = batch.targets.data<int32_t>();
    targets += static_cast<double>(std::count_if(target, target + batch.targets.numel(), [](int32_t t) { return t >= 0; }));
  }
  return targets > 0 ? sum / targets : NAN;
}

class Bar {
 public:
  template <class... Args>
  void show(fmt::format_string<Args...> format, Args&&... args) const {
    if (terminal_) fmt::print(stderr, "\r{:<60}", fmt::format(format, std::forward<Args>(args)...));
  }
  ~Bar() { show("{}", "\r"); }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) != 0;
};

void look(const LoadedModel& model, const std::vector<TokenBatch>& batches, kernels::Gate gate, const Bar& bar, RecallTable& table) {
  const auto heads = static_cast<size_t>(model.description.model.num_attention_heads);
  table.heads.assign(table.settings.size(), std::vector<std::vector<MassKept>>(table.layers.size(), std::vector<MassKept>(heads)));
  for (size_t i = 0; i < batches.size(); ++i) {
    ForwardOptions forward = model.forward();
    forward.on_heads = [&](int64_t layer, const Tensor& q, const Tensor& k) {
      const auto place = std::find(table.layers.begin(), table.layers.end(), layer);
      if (place == table.layers.end()) return;
      bar.show("sequence {} of {}, layer {}", i + 1, batches.size(), layer);
      const auto kept = mass_kept(q, k, batches[i].sequences, table.settings, gate);
      for (size_t s = 0; s < kept.size(); ++s)
        for (size_t h = 0; h < heads; ++h) table.heads[s][static_cast<size_t>(place - table.layers.begin())][h].merge(kept[s][h]);
    };
    const NoGrad no_grad;
    model.transformer->hidden(batches[i], forward);
  }
}

void add_losses(const LoadedModel& model, const std::vector<TokenBatch>& batches, kernels::Gate gate, const Bar& bar, RecallTable& table) {
  table.loss = loss_with(model, batches, model.layers);
  for (size_t s = 0; s < table.settings.size(); ++s) {
    bar.show("loss with S {} K {}", table.settings[s].chunk_size, table.settings[s].topk);
    const auto loss = [&](int64_t full) { return loss_with(model, batches, with_moba(model, table, table.settings[s], gate, full)); };
    const int64_t mean = table.last_by_mean[s], each = table.last_by_layer[s];
    RecallLosses& out = table.losses.emplace_back();
    out.moba = loss(0);
    out.hybrid_by_mean = mean == 0 ? out.moba : loss(mean);
    out.hybrid_by_layer = each == mean ? out.hybrid_by_mean : loss(each);
  }
}

}  // namespace

void run_recall(const ModelOptions& model_options, const RecallOptions& options) {
  RecallTable table;
  for (const std::string& text : options.grid) table.settings.push_back(parse_setting(text));
  MOBA_CHECK(options.keep > 0 && options.keep <= 1, "--keep {}: must be above 0 and at most 1", options.keep);
  const kernels::Gate gate = gate_from_name(options.gate);
  LoadedModel model = open_model(model_options);
  model.check_tokenizer_of(options.data);
  const bool asked = model_options.attention || model_options.hybrid_layers;
  table.attention = asked ? "the attention asked for" : look_with_full_attention(model);
  table.layers = layers_without_window(model);
  table.model_layers = model.description.model.num_hidden_layers;
  table.checkpoint = model.dir;
  table.data = options.data;
  table.gate = options.gate;
  table.keep = options.keep;
  const Sampler sampler = make_sampler(model, options);
  table.available = sampler.samples_per_epoch();
  table.sequences = std::min(options.sequences, table.available);
  MOBA_CHECK(table.sequences >= 1, "{} holds less than one sequence of that length; lower --sequence-length", options.data);

  std::vector<TokenBatch> batches;
  for (int64_t i = 0; i < table.sequences; ++i) {
    const std::vector<Sample> samples = {sampler.sample(i)};
    batches.push_back(pack_batch(samples));
    check_vocabulary(batches.back(), model.description.model.vocab_size);
  }
  table.sequence_length = batches.front().tokens.numel();
  if (const int64_t known = model.description.model.max_position_embeddings; table.sequence_length > known)
    fmt::print(stderr, "warning: sequences of {} tokens are longer than the {} that the model knows (max_position_embeddings)\n",
               table.sequence_length, known);
  {
    const Bar bar;
    look(model, batches, gate, bar, table);
    judge(table);
    add_losses(model, batches, gate, bar, table);
  }
  if (!options.svg.empty()) write_hashed_file(options.svg, recall_picture(table));
  if (options.json) return fmt::print("{}\n", to_json(table).dump());
  print_table(table);
}

}  // namespace moba::eval
