#include "src/train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "src/data/tokenizer.h"
#include "src/train/batch.h"
#include "src/train/evaluation_data.h"

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

struct Sum {
  double loss = 0;
  int64_t targets = 0;
  void add(double nats) { loss += nats, ++targets; }
  double mean() const { return targets > 0 ? loss / static_cast<double>(targets) : kNone; }
};

// What one sample, or all of them, come to: one row of figures. A sample is summed up by itself and samples are added in their order,
// so that the bits do not depend on which process worked on a sample.
struct Losses {
  explicit Losses(int64_t bins) : bin(static_cast<size_t>(bins)) {}

  int64_t row_size() const { return 6 + 2 * static_cast<int64_t>(bin.size()); }
  // Bytes, windows, then loss and targets of each sum. Counts are exact in fp64.
  void write_row(double* row) const {
    const auto put = [&row](const Sum& s) { *row++ = s.loss, *row++ = static_cast<double>(s.targets); };
    *row++ = static_cast<double>(bytes), *row++ = static_cast<double>(windows);
    put(all), put(trailing);
    for (const Sum& s : bin) put(s);
  }
  void add_row(const double* row) {
    const auto take = [&row](Sum& s) { s.loss += *row++, s.targets += static_cast<int64_t>(*row++); };
    bytes += static_cast<int64_t>(*row++), windows += static_cast<int64_t>(*row++);
    take(all), take(trailing);
    for (Sum& s : bin) take(s);
  }

  Sum all, trailing;
  std::vector<Sum> bin;  // by position
  int64_t bytes = 0, windows = 0;
};

class Evaluation {
 public:
  Evaluation(Transformer& model, const ForwardOptions& options, const EvaluationConfig& config, const std::function<bool()>& stop,
             const std::function<void(double)>& progress)
      : model_(model),
        options_(options),
        config_(config),
        stop_(stop),
        progress_(progress),
        sampler_(packed_sampler(config)),
        sum_(config.bins) {
    MOBA_ASSERT(!config.by_example || (config.packing == Packing::best_fit && config.document_mask));
    options_.checkpoint_blocks = false;
    plan_windows();
  }

  std::optional<EvaluationResult> run() {
    const NoGrad no_grad;
    if (!packed() || !by_window()) return {};
    keep_positions();
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

  // A window that is a row of the packed pass, as all are of a book that begins its file, is not read again. Only rows that cut the
  // running text anywhere (concat) begin at multiples of their length.
  void plan_windows() {
    rows_ = std::min(sampler_.samples_per_epoch(), sample_limit(config_));
    row_is_window_.assign(static_cast<size_t>(rows_), false);
    samples_ = rows_;
    if (!reads_windows(config_)) return;
    const int64_t length = config_.sequence_length;
    int64_t left = sample_limit(config_), first_row = 0;
    for (const TokenDataset& data : sampler_.datasets()) {
      std::vector<int64_t>& starts = windows_.emplace_back();
      for (const int64_t begin : window_starts(data, length)) {
        if (left-- <= 0) break;
        const int64_t row = first_row + begin / length;
        if (config_.packing == Packing::concat && begin % length == 0 && row < rows_)
          row_is_window_[static_cast<size_t>(row)] = true;
        else
          starts.push_back(begin);
      }
      left = std::max<int64_t>(left, 0);
      first_row += (data.info().tokens - 1) / length;
      samples_ += static_cast<int64_t>(starts.size());
    }
  }

  // Adds of_sample(i, sample, nats of its targets) for samples make(0 .. count-1), several in one pass and spread over the ranks. False
  // if stopped.
  template <class Make, class OfSample>
  bool each(int64_t count, Make&& make, OfSample&& of_sample) {
    const int64_t length = config_.sequence_length, together = std::max<int64_t>(1, config_.tokens_per_pass / length);
    const int64_t ranks = config_.ranks ? config_.ranks->size() : 1, rank = config_.ranks ? config_.ranks->rank() : 0;
    const Tensor rows = Tensor::zeros({count, sum_.row_size()}, DType::f64);
    for (int64_t round = 0; round < count; round += ranks * together) {
      if (stop_ && stop_()) return false;
      const int64_t first = std::min(count, round + rank * together), end = std::min(count, first + together);
      std::vector<Sample> samples;
      for (int64_t i = first; i < end; ++i) samples.push_back(make(i));
      const std::vector<double> nats = samples.empty() ? std::vector<double>() : losses(samples);
      for (size_t i = 0; i < samples.size(); ++i) {
        const auto of_this = std::span(nats).subspan(i * static_cast<size_t>(length), static_cast<size_t>(length));
        const int64_t n = first + static_cast<int64_t>(i);
        of_sample(n, samples[i], of_this).write_row(rows.data<double>() + n * sum_.row_size());
      }
      if (progress_) progress_(static_cast<double>(done_ + std::min(count, round + ranks * together)) / static_cast<double>(samples_));
    }
    done_ += count;
    // Rows of other ranks are 0 here, so adding up is exact.
    if (ranks > 1 && count > 0) config_.ranks->all_reduce(rows, ReduceOp::sum, "evaluation").wait();
    for (int64_t i = 0; i < count; ++i) sum_.add_row(rows.data<double>() + i * sum_.row_size());
    return true;
  }

  void share_routing() {
    if (!config_.ranks || config_.ranks->size() == 1) return;
    const std::vector<int64_t> mine = result_.routing.packed();
    const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(int64_t));
    RoutingStatistics all;
    for (const std::string& part : config_.ranks->all_gather_strings(bytes, "routing statistics")) {
      std::vector<int64_t> row(part.size() / sizeof(int64_t));
      std::memcpy(row.data(), part.data(), part.size());
      all.merge(RoutingStatistics::unpacked(row));
    }
    result_.routing = std::move(all);
  }

  void add_position(Losses& losses, int64_t position, bool trailing, double nats) const {
    if (config_.bins > 0) losses.bin[static_cast<size_t>(position * config_.bins / config_.sequence_length)].add(nats);
    if (trailing) losses.trailing.add(nats);
  }

  void add_window(Losses& losses, const Sample& sample, std::span<const double> nats) const {
    losses.windows += 1;
    for (size_t t = 0; t < nats.size(); ++t)
      if (sample.targets[t] >= 0)
        add_position(losses, static_cast<int64_t>(t), static_cast<int64_t>(t) >= config_.sequence_length - config_.trailing, nats[t]);
  }

  Losses of_packed(const Sample& sample, std::span<const double> nats, const std::vector<int32_t>& sizes) const {
    Losses out(config_.bins);
    for (size_t t = 0; t < nats.size(); ++t)
      if (sample.targets[t] >= 0) out.all.add(nats[t]);
    out.bytes = bytes_of(sample, sizes);
    if (config_.by_example) add_examples(out, sample, nats);
    return out;
  }

  // best_fit never splits an example, so each piece of the row is one; the padding has no counted target.
  void add_examples(Losses& losses, const Sample& sample, std::span<const double> nats) const {
    for (size_t piece = 0; piece + 1 < sample.cu_seqlens.size(); ++piece) {
      int64_t counted = 0;  // from the end of the example on
      for (int32_t t = sample.cu_seqlens[piece + 1] - 1; t >= sample.cu_seqlens[piece]; --t) {
        const auto at = static_cast<size_t>(t);
        if (sample.targets[at] >= 0) add_position(losses, sample.positions[at], counted++ < config_.trailing, nats[at]);
      }
      losses.windows += counted > 0;
    }
  }

  void keep_positions() {
    result_.windows = sum_.windows;
    if (sum_.windows == 0) return;
    for (const Sum& s : sum_.bin) result_.position_loss.push_back(s.mean());
    if (config_.trailing > 0) result_.trailing_loss = sum_.trailing.mean();
  }

  bool packed() {
    const std::vector<int32_t> sizes = token_bytes(sampler_.datasets().front().info().tokenizer_json);
    collect_routing_ = true;
    const bool whole = each(
        rows_, [&](int64_t i) { return sampler_.sample(i); },
        [&](int64_t i, const Sample& sample, std::span<const double> nats) {
          Losses out = of_packed(sample, nats, sizes);
          if (row_is_window_[static_cast<size_t>(i)]) add_window(out, sample, nats);
          return out;
        });
    collect_routing_ = false;
    if (!whole) return false;
    share_routing();
    result_.loss = sum_.all.mean();
    result_.targets = sum_.all.targets;
    result_.bits_per_byte = sum_.bytes > 0 ? sum_.all.loss / (static_cast<double>(sum_.bytes) * std::numbers::ln2) : kNone;
    return true;
  }

  bool by_window() {
    for (size_t file = 0; file < windows_.size(); ++file) {
      const TokenDataset& data = sampler_.datasets()[file];
      const std::vector<int64_t>& starts = windows_[file];
      const bool whole = each(
          static_cast<int64_t>(starts.size()),
          [&](int64_t i) { return window_sample(data, starts[static_cast<size_t>(i)], config_.sequence_length, config_.ignore_loss_mask); },
          [&](int64_t, const Sample& sample, std::span<const double> nats) {
            Losses out(config_.bins);
            add_window(out, sample, nats);
            return out;
          });
      if (!whole) return false;
    }
    return true;
  }

  Transformer& model_;
  ForwardOptions options_;
  const EvaluationConfig& config_;
  const std::function<bool()>& stop_;
  const std::function<void(double)>& progress_;
  const Sampler sampler_;
  int64_t rows_ = 0;                           // of the packed pass
  std::vector<bool> row_is_window_;            // [rows]
  std::vector<std::vector<int64_t>> windows_;  // per file, first tokens of the windows that are no rows
  int64_t samples_ = 0;                        // rows and windows to read
  int64_t done_ = 0;                           // of them are read
  bool collect_routing_ = false;
  Losses sum_;
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
