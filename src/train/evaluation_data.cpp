#include "src/train/evaluation_data.h"

#include <algorithm>
#include <limits>

namespace moba {

SamplerConfig packed_sampler(const EvaluationConfig& config) {
  SamplerConfig sampling;
  for (const std::string& file : config.files) sampling.sources.push_back({file, 1});
  sampling.sequence_length = config.sequence_length;
  sampling.packing = config.packing;
  sampling.document_mask = config.document_mask;
  sampling.too_long = config.too_long;
  sampling.ignore_loss_mask = config.ignore_loss_mask;
  sampling.shuffle = false;
  return sampling;
}

int64_t sample_limit(const EvaluationConfig& config) {
  if (config.max_tokens == 0) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(config.max_tokens / config.sequence_length, 1);
}

bool reads_windows(const EvaluationConfig& config) { return (config.trailing > 0 || config.bins > 0) && !config.by_example; }

std::vector<int64_t> window_starts(const TokenDataset& data, int64_t length) {
  std::vector<int64_t> out;
  const auto offsets = data.document_offsets();
  for (size_t d = 0; d + 1 < offsets.size(); ++d)
    for (int64_t begin = offsets[d]; begin + length + 1 <= offsets[d + 1]; begin += length) out.push_back(begin);
  return out;
}

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

void check_evaluation_data(const EvaluationConfig& config) {
  const Sampler sampler(packed_sampler(config));
  const int64_t limit = sample_limit(config), samples = std::min(sampler.samples_per_epoch(), limit);
  for (int64_t i = 0; i < samples; ++i) sampler.sample(i);
  if (!reads_windows(config)) return;
  int64_t left = limit;
  for (const TokenDataset& data : sampler.datasets())
    for (const int64_t begin : window_starts(data, config.sequence_length)) {
      if (left-- <= 0) return;
      window_sample(data, begin, config.sequence_length, config.ignore_loss_mask);
    }
}

}  // namespace moba
