#include "src/train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "src/data/tokenizer.h"
#include "src/train/batch.h"

namespace moba {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Number of bytes that each token stands for; 0 for special tokens.
std::vector<int32_t> token_bytes(const std::string& tokenizer_json) {
  const auto tokenizer = tokenizer_from_json(tokenizer_json);
  std::vector<int32_t> out(static_cast<size_t>(tokenizer->vocab_size()), 0);
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id)
    if (id != tokenizer->eos_token_id() && id != tokenizer->bos_token_id())
      out[static_cast<size_t>(id)] = static_cast<int32_t>(tokenizer->decode({&id, 1}).size());
  return out;
}

int64_t bytes_of(const Sample& sample, const std::vector<int32_t>& sizes) {
  int64_t bytes = 0;
  for (int32_t target : sample.targets)
    if (target >= 0 && target < static_cast<int32_t>(sizes.size())) bytes += sizes[static_cast<size_t>(target)];
  return bytes;
}

// A full window of a document as a sample: tokens [begin, begin + L] of the file, all of one document.
Sample window_sample(const TokenDataset& data, int64_t begin, int64_t length, bool ignore_loss_mask) {
  std::vector<int32_t> tokens(static_cast<size_t>(length + 1));
  std::vector<uint8_t> counts(static_cast<size_t>(length + 1), 1);
  data.read_tokens(begin, length + 1, tokens.data());
  if (!ignore_loss_mask) data.read_loss_mask(begin, length + 1, counts.data());
  Sample sample;
  sample.tokens.assign(tokens.begin(), tokens.end() - 1);
  sample.cu_seqlens = {0, static_cast<int32_t>(length)};
  for (int64_t t = 0; t < length; ++t) {
    sample.positions.push_back(static_cast<int32_t>(t));
    const auto next = static_cast<size_t>(t + 1);
    sample.targets.push_back(counts[next] ? tokens[next] : -1);
  }
  return sample;
}

// First tokens of the non-overlapping windows of all documents that have room for a window and its last target.
std::vector<int64_t> window_starts(const TokenDataset& data, int64_t length) {
  std::vector<int64_t> out;
  const auto offsets = data.document_offsets();
  for (size_t d = 0; d + 1 < offsets.size(); ++d)
    for (int64_t begin = offsets[d]; begin + length + 1 <= offsets[d + 1]; begin += length) out.push_back(begin);
  return out;
}

struct Sum {
  double loss = 0;
  int64_t targets = 0;
  void add(double nats) { loss += nats, ++targets; }
  double mean() const { return targets > 0 ? loss / static_cast<double>(targets) : kNone; }
};

class Evaluation {
 public:
  Evaluation(Transformer& model, const ForwardOptions& options, const EvaluationConfig& config, const std::function<bool()>& stop,
             const std::function<void(double)>& progress)
      : model_(model), options_(options), config_(config), stop_(stop), progress_(progress) {
    options_.checkpoint_blocks = false;
    limit_ = config.max_tokens > 0 ? std::max<int64_t>(config.max_tokens / config.sequence_length, 1) : std::numeric_limits<int64_t>::max();
  }

  std::optional<EvaluationResult> run() {
    const NoGrad no_grad;
    const bool windows = config_.trailing > 0 || config_.bins > 0;
    if (!packed(windows ? 0.5 : 1.0)) return {};
    if (windows && !by_position()) return {};
    return std::move(result_);
  }

 private:
  // Losses of the samples, [samples * L] nats; targets that don't count have 0.
  std::vector<double> losses(std::span<const Sample> samples) {
    Tensor token_losses;
    const TokenBatch batch = pack_batch(samples);
    model_.loss(batch, forward_for(batch), 1.0, &token_losses);
    return token_losses.to_vector<double>();
  }

  ForwardOptions forward_for(const TokenBatch& batch) {
    ForwardOptions out = options_;
    if (!collect_routing_) return out;
    out.on_selection = [this, &batch](int64_t layer, const Tensor& selected) {
      const int64_t chunk = options_.layers[static_cast<size_t>(layer)].attention.moba.chunk_size;
      result_.routing.add(layer, selected, batch.sequences, chunk);
    };
    return out;
  }

  // Calls use(sample, nats of its targets) for samples make(0 .. count-1), several in one pass. False if stopped.
  template <class Make, class Use>
  bool each(int64_t count, double done, double share, Make&& make, Use&& use) {
    const int64_t length = config_.sequence_length, together = std::max<int64_t>(1, config_.tokens_per_pass / length);
    for (int64_t first = 0; first < count; first += together) {
      if (stop_ && stop_()) return false;
      std::vector<Sample> samples;
      for (int64_t i = first; i < std::min(count, first + together); ++i) samples.push_back(make(i));
      const std::vector<double> nats = losses(samples);
      for (size_t i = 0; i < samples.size(); ++i)
        use(samples[i], std::span(nats).subspan(i * static_cast<size_t>(length), static_cast<size_t>(length)));
      if (progress_) progress_(done + share * static_cast<double>(std::min(count, first + together)) / static_cast<double>(count));
    }
    return true;
  }

  bool packed(double share) {
    SamplerConfig sampling;
    for (const std::string& file : config_.files) sampling.sources.push_back({file, 1});
    sampling.sequence_length = config_.sequence_length;
    sampling.packing = config_.packing;
    sampling.document_mask = config_.document_mask;
    sampling.too_long = config_.too_long;
    sampling.ignore_loss_mask = config_.ignore_loss_mask;
    sampling.shuffle = false;
    const Sampler sampler(sampling);
    const std::vector<int32_t> sizes = token_bytes(sampler.datasets().front().info().tokenizer_json);
    Sum sum;
    int64_t bytes = 0;
    collect_routing_ = true;
    const bool whole = each(
        std::min(sampler.samples_per_epoch(), limit_), 0, share, [&](int64_t i) { return sampler.sample(i); },
        [&](const Sample& sample, std::span<const double> nats) {
          for (size_t t = 0; t < nats.size(); ++t)
            if (sample.targets[t] >= 0) sum.add(nats[t]);
          bytes += bytes_of(sample, sizes);
        });
    collect_routing_ = false;
    result_.loss = sum.mean();
    result_.targets = sum.targets;
    result_.bits_per_byte = bytes > 0 ? sum.loss / (static_cast<double>(bytes) * std::numbers::ln2) : kNone;
    return whole;
  }

  bool by_position() {
    const int64_t length = config_.sequence_length, bins = config_.bins;
    std::vector<Sum> bin(static_cast<size_t>(bins));
    Sum trailing;
    int64_t left = limit_;
    for (const std::string& file : config_.files) {
      const TokenDataset data(file);
      std::vector<int64_t> starts = window_starts(data, length);
      if (static_cast<int64_t>(starts.size()) > left) starts.resize(static_cast<size_t>(left));
      left -= static_cast<int64_t>(starts.size());
      result_.windows += static_cast<int64_t>(starts.size());
      const bool whole = each(
          static_cast<int64_t>(starts.size()), 0.5, 0.5,
          [&](int64_t i) { return window_sample(data, starts[static_cast<size_t>(i)], length, config_.ignore_loss_mask); },
          [&](const Sample& sample, std::span<const double> nats) {
            for (int64_t t = 0; t < length; ++t) {
              if (sample.targets[static_cast<size_t>(t)] < 0) continue;
              if (bins > 0) bin[static_cast<size_t>(t * bins / length)].add(nats[static_cast<size_t>(t)]);
              if (t >= length - config_.trailing) trailing.add(nats[static_cast<size_t>(t)]);
            }
          });
      if (!whole) return false;
    }
    if (result_.windows == 0) return true;
    for (const Sum& s : bin) result_.position_loss.push_back(s.mean());
    if (config_.trailing > 0) result_.trailing_loss = trailing.mean();
    return true;
  }

  Transformer& model_;
  ForwardOptions options_;
  const EvaluationConfig& config_;
  const std::function<bool()>& stop_;
  const std::function<void(double)>& progress_;
  int64_t limit_ = 0;  // samples of a pass
  bool collect_routing_ = false;
  EvaluationResult result_;
};

}  // namespace

std::optional<EvaluationResult> evaluate(Transformer& model, const ForwardOptions& options, const EvaluationConfig& config,
                                         const std::function<bool()>& stop, const std::function<void(double)>& progress) {
  return Evaluation(model, options, config, stop, progress).run();
}

nlohmann::ordered_json evaluation_json(const EvaluationResult& r) {
  nlohmann::ordered_json out = {{"eval/loss", r.loss}, {"eval/bits_per_byte", r.bits_per_byte}, {"eval/targets", r.targets}};
  if (r.trailing_loss) out["eval/trailing_loss"] = *r.trailing_loss;
  if (!r.position_loss.empty()) out["eval/position_loss"] = r.position_loss;
  if (r.routing.empty()) return out;
  const HeadRouting total = r.routing.total();
  out["routing/own_share"] = total.own_share();
  out["routing/distance_blocks"] = total.mean_distance_blocks();
  out["routing/distance_tokens"] = total.mean_distance_tokens();
  const double entries = static_cast<double>(std::max<int64_t>(total.history_entries, 1));
  std::vector<double> shares;
  for (int64_t chosen : total.chosen) shares.push_back(static_cast<double>(chosen) / entries);
  out["routing/block_share"] = shares;
  return out;
}

}  // namespace moba
