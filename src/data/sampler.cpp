#include "src/data/sampler.h"

#include <algorithm>

#include "kernels/common/check.h"
#include "src/data/mixture.h"
#include "src/data/packing.h"
#include "src/data/permutation.h"

namespace moba {
namespace {

// T+1 tokens before they become inputs and targets.
struct Stretch {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counts;  // token counts as a target
  std::vector<int32_t> starts;  // where documents begin; the first is 0
};

Stretch make_stretch(int64_t length) {
  Stretch s;
  s.tokens.resize(static_cast<size_t>(length));
  s.counts.assign(static_cast<size_t>(length), 0);
  return s;
}

// Tokens [begin, begin + T + 1) of the file, whatever documents they cross.
Stretch read_window(const TokenDataset& data, int64_t begin, int64_t length, bool ignore_loss_mask) {
  Stretch s = make_stretch(length);
  data.read_tokens(begin, length, s.tokens.data());
  if (ignore_loss_mask)
    std::ranges::fill(s.counts, uint8_t{1});
  else
    data.read_loss_mask(begin, length, s.counts.data());
  s.starts.push_back(0);
  const auto offsets = data.document_offsets();
  for (auto next = std::ranges::upper_bound(offsets, begin); next != offsets.end() && *next < begin + length; ++next) {
    s.starts.push_back(static_cast<int32_t>(*next - begin));
  }
  return s;
}

// The whole documents of one bin, then end tokens that count nowhere.
Stretch read_bin(const TokenDataset& data, std::span<const int64_t> documents, int64_t length, bool ignore_loss_mask) {
  Stretch s = make_stretch(length);
  const auto offsets = data.document_offsets();
  int64_t at = 0;
  for (const int64_t d : documents) {
    const int64_t tokens = std::min(offsets[d + 1] - offsets[d], length);
    data.read_tokens(offsets[d], tokens, &s.tokens[at]);
    if (ignore_loss_mask)
      std::fill_n(&s.counts[at], tokens, uint8_t{1});
    else
      data.read_loss_mask(offsets[d], tokens, &s.counts[at]);
    s.starts.push_back(static_cast<int32_t>(at));
    at += tokens;
  }
  if (at < length) s.starts.push_back(static_cast<int32_t>(at));
  std::fill(s.tokens.begin() + at, s.tokens.end(), std::max(data.info().eos_token_id, 0));
  return s;
}

Sample make_sample(const Stretch& s, bool document_mask) {
  const auto length = static_cast<int32_t>(s.tokens.size()) - 1;
  Sample sample;
  sample.tokens.assign(s.tokens.begin(), s.tokens.end() - 1);
  sample.targets.assign(s.tokens.begin() + 1, s.tokens.end());
  for (int32_t t = 0; t < length; ++t) {
    if (!s.counts[t + 1]) sample.targets[t] = -1;
  }
  sample.cu_seqlens.push_back(0);
  if (document_mask) {
    for (const int32_t start : s.starts) {
      if (start == 0) continue;
      sample.targets[start - 1] = -1;  // it belongs to the next document
      if (start < length) sample.cu_seqlens.push_back(start);
    }
  }
  sample.cu_seqlens.push_back(length);
  sample.positions.resize(length);
  for (size_t piece = 0; piece + 1 < sample.cu_seqlens.size(); ++piece) {
    for (int32_t t = sample.cu_seqlens[piece]; t < sample.cu_seqlens[piece + 1]; ++t) sample.positions[t] = t - sample.cu_seqlens[piece];
  }
  return sample;
}

}  // namespace

int64_t Sample::counted() const {
  return std::ranges::count_if(targets, [](int32_t t) { return t >= 0; });
}

struct Sampler::Impl {
  SamplerConfig config;
  std::vector<TokenDataset> datasets;
  std::vector<PackingPlan> plans;  // best_fit only
  std::vector<int64_t> samples;    // per epoch and source
  int64_t total = 0;
  std::unique_ptr<Mixture> mixture;  // shuffle only

  void open(const std::string& path);
  Mixture::Pick in_file_order(int64_t n) const;
};

void Sampler::Impl::open(const std::string& path) {
  const TokenDataset& data = datasets.emplace_back(path);
  const int64_t length = config.sequence_length;
  if (config.packing == Packing::concat) {
    samples.push_back((data.info().tokens - 1) / length);
    MOBA_CHECK(samples.back() > 0, "{}: {} tokens are too few for one sample of sequence length {} (add data or shorten the sequence)",
               path, data.info().tokens, length);
  } else {
    plans.push_back(plan_best_fit(data.document_offsets(), length + 1, config.too_long));
    samples.push_back(plans.back().count());
    MOBA_CHECK(samples.back() > 0, "{}: every document is longer than the sequence length {} + 1 (raise it, or truncate documents)", path,
               length);
  }
  total += samples.back();
}

Mixture::Pick Sampler::Impl::in_file_order(int64_t n) const {
  MOBA_CHECK(n < total, "sample {} asked for, but the files hold {} in all", n, total);
  int source = 0;
  for (; n >= samples[source]; ++source) n -= samples[source];
  return {source, n};
}

Sampler::Sampler(const SamplerConfig& config) : impl_(new Impl) {
  impl_->config = config;
  MOBA_CHECK(!config.sources.empty(), "no data files given");
  MOBA_CHECK(config.sequence_length > 0 && config.sequence_length < INT32_MAX, "sequence length {} is out of range",
             config.sequence_length);
  std::vector<double> weights;
  for (const auto& source : config.sources) {
    impl_->open(source.path);
    weights.push_back(source.weight);
    const DatasetInfo &info = impl_->datasets.back().info(), &first = impl_->datasets.front().info();
    MOBA_CHECK(info.tokenizer_sha256 == first.tokenizer_sha256, "{} and {} were made with different tokenizers", source.path,
               config.sources.front().path);
  }
  if (config.shuffle) impl_->mixture = std::make_unique<Mixture>(weights);
}

Sampler::~Sampler() = default;

int64_t Sampler::samples_per_epoch() const { return impl_->total; }

const std::vector<TokenDataset>& Sampler::datasets() const { return impl_->datasets; }

Sample Sampler::sample(int64_t n) const {
  const Impl& s = *impl_;
  MOBA_ASSERT(n >= 0);
  auto [source, index] = s.mixture ? (*s.mixture)(n) : s.in_file_order(n);
  const TokenDataset& data = s.datasets[source];
  if (s.mixture) {
    const int64_t epoch = index / s.samples[source];
    const Permutation order(s.samples[source], s.config.seed, data.info().content_hash, static_cast<uint64_t>(epoch));
    index = order(index % s.samples[source]);
  }
  const int64_t length = s.config.sequence_length;
  if (s.config.packing == Packing::concat) {
    return make_sample(read_window(data, index * length, length + 1, s.config.ignore_loss_mask), s.config.document_mask);
  }
  const PackingPlan& plan = s.plans[source];
  const std::span<const int64_t> bin(plan.documents.data() + plan.bins[index],
                                     static_cast<size_t>(plan.bins[index + 1] - plan.bins[index]));
  return make_sample(read_bin(data, bin, length + 1, s.config.ignore_loss_mask), s.config.document_mask);
}

}  // namespace moba
