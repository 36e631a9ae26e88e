#include "src/data/unigram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"

namespace moba {
namespace {

std::vector<int64_t> token_counts(const TokenDataset& data) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<int64_t> counts(static_cast<size_t>(data.info().vocab_size), 0);
  std::vector<int32_t> tokens(kPiece);
  for (int64_t begin = 0; begin < data.info().tokens; begin += kPiece) {
    const int64_t count = std::min(kPiece, data.info().tokens - begin);
    data.read_tokens(begin, count, tokens.data());
    for (int64_t i = 0; i < count; ++i) ++counts[static_cast<size_t>(tokens[static_cast<size_t>(i)])];
  }
  return counts;
}

}  // namespace

double unigram_loss(const TokenDataset& train, const TokenDataset& test) {
  MOBA_CHECK(train.info().tokenizer_sha256 == test.info().tokenizer_sha256,
             "{} and {} were made with different tokenizers; prepare both with the same one", train.path(), test.path());
  MOBA_CHECK(test.info().tokens > 0, "{} holds no tokens", test.path());
  const auto fitted = token_counts(train), seen = token_counts(test);
  const auto total = static_cast<double>(train.info().tokens + train.info().vocab_size);
  double loss = 0;
  for (size_t i = 0; i < seen.size(); ++i) loss -= static_cast<double>(seen[i]) * std::log(static_cast<double>(fitted[i] + 1) / total);
  return loss / static_cast<double>(test.info().tokens);
}

}  // namespace moba
