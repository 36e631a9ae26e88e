// Attention mass kept by a selection, against plain loops.
#include "src/moba/recall.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/threads.h"

namespace moba {
namespace {

Tensor values(int64_t tokens, int64_t heads, int64_t dim, int seed) {
  std::vector<float> v(static_cast<size_t>(tokens * heads * dim));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i * 7 % 1009) + seed) * 1.5);
  return Tensor::from<float>(v, {tokens, heads, dim});
}

PackedSequences two_sequences(int32_t first, int32_t second) {
  const Tensor cu = Tensor::from<int32_t>({0, first, first + second}, {3});
  return {cu, cu};
}

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 8;

// Softmax of one query over its past, and the share that lies in the selected blocks.
double plain_share(const Tensor& q, const Tensor& k, int64_t begin, int64_t position, int64_t head, const RecallSetting& s,
                   const Tensor& selected) {
  std::vector<double> weight;
  double total = 0;
  for (int64_t j = 0; j <= position; ++j) {
    double dot = 0;
    for (int64_t d = 0; d < kDim; ++d)
      dot += static_cast<double>(q.data<float>()[((begin + position) * kHeads + head) * kDim + d]) *
             k.data<float>()[((begin + j) * kKvHeads + head / (kHeads / kKvHeads)) * kDim + d];
    weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(kDim))));
    total += weight.back();
  }
  double kept = 0;
  for (int64_t i = 0; i < selected.size(2); ++i) {
    const int32_t block = selected.data<int32_t>()[((begin + position) * kHeads + head) * selected.size(2) + i];
    if (block < 0) continue;
    for (int64_t j = block * s.chunk_size; j < (block + 1) * s.chunk_size && j <= position; ++j) kept += weight[static_cast<size_t>(j)];
  }
  return kept / total;
}

TEST(Recall, EqualsPlainLoops) {
  const int32_t lengths[2] = {150, 37};
  const Tensor q = values(187, kHeads, kDim, 1), k = values(187, kKvHeads, kDim, 2);
  const PackedSequences sequences = two_sequences(lengths[0], lengths[1]);
  const std::vector<RecallSetting> settings = {{16, 2}, {8, 3}};
  const auto kept = mass_kept(q, k, sequences, settings);
  for (size_t s = 0; s < settings.size(); ++s) {
    AttentionConfig config;
    config.type = kernels::AttentionType::moba;
    config.moba.chunk_size = settings[s].chunk_size;
    config.moba.topk = settings[s].topk;
    const Tensor selected = moba_select(q, k, sequences, config);
    for (int64_t head = 0; head < kHeads; ++head) {
      double sum = 0;
      int64_t begin = 0, skipping = 0;
      for (const int32_t length : lengths) {
        // The first K blocks are read whole: nothing is skipped there.
        for (int64_t p = settings[s].topk * settings[s].chunk_size; p < length; ++p, ++skipping)
          sum += plain_share(q, k, begin, p, head, settings[s], selected);
        begin += length;
      }
      const MassKept& m = kept[s][static_cast<size_t>(head)];
      EXPECT_EQ(m.queries, 187);
      EXPECT_EQ(m.skipping, skipping);
      EXPECT_NEAR(m.kept, sum, 1e-4 * sum);
      EXPECT_LE(m.kept, m.best + 1e-9);
      EXPECT_NEAR(m.share(), sum / static_cast<double>(skipping), 1e-4);
    }
  }
}

TEST(Recall, ReadingEveryBlockKeepsEverything) {
  const Tensor q = values(100, kHeads, kDim, 3), k = values(100, kKvHeads, kDim, 4);
  const auto kept = mass_kept(q, k, one_sequence(100, 100), {{16, 7}});
  for (const MassKept& m : kept[0]) {
    EXPECT_NEAR(m.share(), 1, 1e-12);
    EXPECT_NEAR(m.share_read(), 1, 1e-12);
    EXPECT_EQ(m.skipping, 0);
  }
}

TEST(Recall, TheOracleKeepsTheBestPossible) {
  const Tensor q = values(160, kHeads, kDim, 5), k = values(160, kKvHeads, kDim, 6);
  const auto kept = mass_kept(q, k, one_sequence(160, 160), {{16, 3}}, kernels::Gate::oracle);
  for (const MassKept& m : kept[0]) EXPECT_NEAR(m.kept, m.best, 1e-6 * m.best);
}

TEST(Recall, BitsDoNotDependOnThreads) {
  const Tensor q = values(160, kHeads, kDim, 7), k = values(160, kKvHeads, kDim, 8);
  const int before = num_threads();
  std::vector<double> sums;
  for (const int n : {1, 3}) {
    set_num_threads(n);
    sums.push_back(mass_kept(q, k, one_sequence(160, 160), {{16, 3}})[0][1].kept);
  }
  set_num_threads(before);
  EXPECT_EQ(sums[0], sums[1]);
}

}  // namespace
}  // namespace moba
