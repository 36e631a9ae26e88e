#include "src/data/dataset_stats.h"

#include <algorithm>
#include <numeric>

#include "src/data/tokenizer.h"

namespace moba {

DatasetStats dataset_stats(const TokenDataset& data) {
  DatasetStats stats;
  const DatasetInfo& info = data.info();
  const auto tokenizer = tokenizer_from_json(info.tokenizer_json);

  constexpr int64_t kPiece = 1 << 16;
  std::vector<int32_t> tokens(kPiece);
  std::vector<uint8_t> mask(kPiece);
  for (int64_t begin = 0; begin < info.tokens; begin += kPiece) {
    const int64_t count = std::min(kPiece, info.tokens - begin);
    tokens.resize(count);
    data.read_tokens(begin, count, tokens.data());
    data.read_loss_mask(begin, count, mask.data());
    stats.counted += std::accumulate(mask.begin(), mask.begin() + count, int64_t{0});
    std::erase_if(tokens, [&](int32_t t) { return t == info.eos_token_id || t == info.bos_token_id; });
    stats.text_bytes += static_cast<int64_t>(tokenizer->decode(tokens).size());
  }

  const auto offsets = data.document_offsets();
  std::vector<int64_t> lengths;
  for (size_t i = 1; i < offsets.size(); ++i) lengths.push_back(offsets[i] - offsets[i - 1]);
  std::ranges::sort(lengths);
  stats.shortest = lengths.front();
  stats.median = lengths[lengths.size() / 2];
  stats.longest = lengths.back();
  int64_t below = 1;
  for (const int64_t length : lengths) {
    while (length >= below) below *= 2;
    if (stats.histogram.empty() || stats.histogram.back().below != below) stats.histogram.push_back({below, 0, 0});
    ++stats.histogram.back().documents;
    stats.histogram.back().tokens += length;
  }
  return stats;
}

}  // namespace moba
