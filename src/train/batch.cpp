#include "src/train/batch.h"

namespace moba {

TokenBatch pack_batch(std::span<const Sample> samples) {
  std::vector<int32_t> tokens, targets, positions, cu_seqlens = {0};
  for (const Sample& sample : samples) {
    const auto begin = static_cast<int32_t>(tokens.size());
    tokens.insert(tokens.end(), sample.tokens.begin(), sample.tokens.end());
    targets.insert(targets.end(), sample.targets.begin(), sample.targets.end());
    positions.insert(positions.end(), sample.positions.begin(), sample.positions.end());
    for (size_t piece = 1; piece < sample.cu_seqlens.size(); ++piece) cu_seqlens.push_back(begin + sample.cu_seqlens[piece]);
  }
  const auto row = [](const std::vector<int32_t>& values) { return Tensor::from(values, {static_cast<int64_t>(values.size())}); };
  TokenBatch batch;
  batch.tokens = row(tokens);
  batch.targets = row(targets);
  batch.positions = row(positions);
  batch.sequences.cu_seqlens_q = batch.sequences.cu_seqlens_k = row(cu_seqlens);
  return batch;
}

int64_t counted_targets(std::span<const Sample> samples) {
  int64_t counted = 0;
  for (const Sample& sample : samples) counted += sample.counted();
  return counted;
}

}  // namespace moba
