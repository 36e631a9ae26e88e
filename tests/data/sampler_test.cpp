#include "src/data/sampler.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "kernels/common/check.h"
#include "src/data/mixture.h"
#include "src/data/packing.h"
#include "src/data/permutation.h"
#include "tests/data/data_files.h"

namespace moba::test {
namespace {

SamplerConfig config_for(const std::string& path, int64_t length) {
  SamplerConfig config;
  config.sources = {{path, 1}};
  config.sequence_length = length;
  config.seed = 7;
  return config;
}

bool same(const Sample& a, const Sample& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.positions == b.positions && a.cu_seqlens == b.cu_seqlens;
}

TEST(Permutation, IsOneToOneForEverySize) {
  for (int64_t count : {1, 2, 3, 5, 16, 17, 1000, 4097}) {
    const Permutation order(count, 1, 2, 3);
    std::set<int64_t> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(order(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), count - 1);
  }
}

TEST(Permutation, DependsOnSeedFileAndEpoch) {
  const auto first = [](uint64_t seed, uint64_t hash, uint64_t epoch) {
    const Permutation order(1'000'000'000, seed, hash, epoch);
    return std::vector{order(0), order(1), order(2)};
  };
  EXPECT_EQ(first(1, 2, 3), first(1, 2, 3));
  EXPECT_NE(first(1, 2, 3), first(2, 2, 3));
  EXPECT_NE(first(1, 2, 3), first(1, 3, 3));
  EXPECT_NE(first(1, 2, 3), first(1, 2, 4));
}

TEST(Permutation, MovesNeighboursFarApart) {
  constexpr int64_t kCount = 10'000;
  const Permutation order(kCount, 1, 2, 0);
  double sum = 0;
  for (int64_t i = 1; i < kCount; ++i) sum += static_cast<double>(std::abs(order(i) - order(i - 1)));
  EXPECT_NEAR(sum / kCount, kCount / 3.0, kCount * 0.02);  // the mean distance of two random places
}

// The rule itself, in exact integers: the source most behind its weight, the first on ties.
TEST(Mixture, FollowsTheRule) {
  const Mixture mixture({3, 1, 2});
  const std::vector<int64_t> weights{3, 1, 2};
  std::vector<int64_t> used(3, 0);
  for (int64_t n = 0; n < 1000; ++n) {
    int best = 0;
    int64_t most = INT64_MIN;
    for (int i = 0; i < 3; ++i) {
      const int64_t behind = weights[i] * (n + 1) - 6 * used[i];
      if (behind > most) most = behind, best = i;
    }
    const auto pick = mixture(n);
    ASSERT_EQ(pick.source, best) << n;
    ASSERT_EQ(pick.index, used[best]++) << n;
  }
}

TEST(Mixture, KeepsIrrationalWeightsAndAnswersFarAway) {
  const std::vector<double> weights{std::sqrt(2.0), 1, 0.001};
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const Mixture mixture(weights);
  constexpr int64_t kFar = 1'000'000'000;
  for (int64_t n = kFar; n < kFar + 5000; ++n) {
    const auto pick = mixture(n);
    EXPECT_NEAR(static_cast<double>(pick.index) / kFar, weights[pick.source] / sum, 2e-5);
  }
  EXPECT_THROW(Mixture({1, 0}), Error);
  EXPECT_THROW(Mixture({1, 1e-9}), Error);
}

TEST(Packing, NeverSplitsAndNeverOverfills) {
  std::vector<int64_t> offsets{0};
  for (int i = 0; i < 500; ++i) offsets.push_back(offsets.back() + 1 + (i * 7919) % 130);
  const auto plan = plan_best_fit(offsets, 100, TooLong::drop);
  std::set<int64_t> seen(plan.documents.begin(), plan.documents.end());
  EXPECT_EQ(seen.size(), plan.documents.size());
  EXPECT_EQ(static_cast<int64_t>(seen.size()) + plan.dropped, 500);
  EXPECT_GT(plan.dropped, 0);
  int64_t used = 0;
  for (int64_t b = 0; b < plan.count(); ++b) {
    int64_t tokens = 0;
    for (int64_t i = plan.bins[b]; i < plan.bins[b + 1]; ++i) tokens += offsets[plan.documents[i] + 1] - offsets[plan.documents[i]];
    EXPECT_GT(tokens, 0);
    EXPECT_LE(tokens, 100);
    used += tokens;
  }
  EXPECT_GT(static_cast<double>(used) / (100.0 * static_cast<double>(plan.count())), 0.97);
  const auto cut = plan_best_fit(offsets, 100, TooLong::truncate);
  EXPECT_EQ(cut.documents.size(), 500u);
  EXPECT_EQ(cut.truncated, plan.dropped);
}

TEST(Sampler, ConcatTakesEveryWindowOncePerEpoch) {
  const DataFolder folder;
  const auto path = folder.counting_dataset("a.h5", 9, 23, 50);  // token ids count up: 207 tokens
  const Sampler sampler(config_for(path, 10));
  ASSERT_EQ(sampler.samples_per_epoch(), 20);
  std::vector<int64_t> second_epoch;
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::set<int64_t> windows;
    for (int64_t n = epoch * 20; n < epoch * 20 + 20; ++n) {
      const Sample sample = sampler.sample(n);
      ASSERT_EQ(sample.tokens.size(), 10u);
      EXPECT_EQ(sample.tokens[0] % 10, 0);
      EXPECT_EQ(sample.counted(), 10);
      for (int t = 0; t < 10; ++t) {
        EXPECT_EQ(sample.tokens[t], sample.tokens[0] + t);
        EXPECT_EQ(sample.targets[t], sample.tokens[t] + 1);
        EXPECT_EQ(sample.positions[t], t);
      }
      EXPECT_EQ(sample.cu_seqlens, (std::vector<int32_t>{0, 10}));
      windows.insert(sample.tokens[0]);
    }
    EXPECT_EQ(windows.size(), 20u);
  }
}

TEST(Sampler, DocumentMaskCutsAtDocuments) {
  const DataFolder folder;
  const auto path = folder.counting_dataset("a.h5", 9, 23, 50);
  SamplerConfig config = config_for(path, 20);
  config.document_mask = true;
  config.shuffle = false;
  const Sample sample = Sampler(config).sample(1);  // tokens 20..39, documents begin at 27 and 36
  EXPECT_EQ(sample.cu_seqlens, (std::vector<int32_t>{0, 7, 16, 20}));
  for (int t = 0; t < 20; ++t) EXPECT_EQ(sample.targets[t], t == 6 || t == 15 ? -1 : 21 + t);
  EXPECT_EQ(sample.positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3}));
}

TEST(Sampler, DocumentBorderAtTheSamplesEdges) {
  const DataFolder folder;
  const auto path = folder.counting_dataset("a.h5", 10, 10, 50);
  SamplerConfig config = config_for(path, 10);
  config.document_mask = true;
  config.shuffle = false;
  const Sample sample = Sampler(config).sample(1);  // tokens 10..20: a document begins at 10 and at 20
  EXPECT_EQ(sample.cu_seqlens, (std::vector<int32_t>{0, 10}));
  EXPECT_EQ(sample.counted(), 9);
  EXPECT_EQ(sample.targets[9], -1);
}

TEST(Sampler, LossMaskCountsTokensAsTargets) {
  const DataFolder folder;
  const auto path = folder.path("m.h5");
  TokenDatasetWriter writer(path, 300, 256, -1, "{}", true);
  const std::vector<int32_t> tokens{1, 2, 3, 4, 5, 256};
  const std::vector<uint8_t> mask{1, 0, 0, 1, 1, 0};
  writer.add_document(tokens, mask);
  writer.finish();
  const Sample sample = Sampler(config_for(path, 5)).sample(0);
  EXPECT_EQ(sample.targets, (std::vector<int32_t>{-1, -1, 4, 5, -1}));
}

TEST(Sampler, BestFitPadsWithAnUncountedDocument) {
  const DataFolder folder;
  const auto path = folder.dataset("p.h5", {{1, 2, 3, 256}, {4, 5, 6, 7, 8, 256}, {9, 256}});
  SamplerConfig config = config_for(path, 14);
  config.packing = Packing::best_fit;
  config.document_mask = true;
  const Sampler sampler(config);
  ASSERT_EQ(sampler.samples_per_epoch(), 1);
  const Sample sample = sampler.sample(0);
  EXPECT_EQ(sample.tokens, (std::vector<int32_t>{4, 5, 6, 7, 8, 256, 1, 2, 3, 256, 9, 256, 256, 256}));
  EXPECT_EQ(sample.targets, (std::vector<int32_t>{5, 6, 7, 8, 256, -1, 2, 3, 256, -1, 256, -1, -1, -1}));
  EXPECT_EQ(sample.cu_seqlens, (std::vector<int32_t>{0, 6, 10, 12, 14}));
}

TEST(Sampler, BestFitFullBinNeedsNoPadding) {
  const DataFolder folder;
  const auto path = folder.dataset("p.h5", {{1, 2, 3, 256}, {4, 5, 256}});
  SamplerConfig config = config_for(path, 6);  // T + 1 = 7 tokens fit exactly
  config.packing = Packing::best_fit;
  config.document_mask = true;
  const Sample sample = Sampler(config).sample(0);
  EXPECT_EQ(sample.tokens, (std::vector<int32_t>{1, 2, 3, 256, 4, 5}));
  EXPECT_EQ(sample.targets, (std::vector<int32_t>{2, 3, 256, -1, 5, 256}));
  EXPECT_EQ(sample.cu_seqlens, (std::vector<int32_t>{0, 4, 6}));
}

TEST(Sampler, BestFitDropsOrTruncatesLongDocuments) {
  const DataFolder folder;
  const auto path = folder.dataset("p.h5", {{1, 2, 3, 4, 5, 256}, {6, 256}});
  SamplerConfig config = config_for(path, 4);
  config.packing = Packing::best_fit;
  EXPECT_EQ(Sampler(config).samples_per_epoch(), 1);
  config.too_long = TooLong::truncate;
  const Sampler sampler(config);
  ASSERT_EQ(sampler.samples_per_epoch(), 2);
  std::set<std::vector<int32_t>> samples{sampler.sample(0).tokens, sampler.sample(1).tokens};
  EXPECT_TRUE(samples.contains({1, 2, 3, 4}));
  config.too_long = TooLong::drop;
  config.sequence_length = 0;
  EXPECT_THROW(Sampler{config}, Error);
}

TEST(Sampler, MixtureKeepsProportionsAndIsPure) {
  const DataFolder folder;
  SamplerConfig config = config_for(folder.dataset("a.h5", {std::vector<int32_t>(101, 1)}), 10);
  config.sources.push_back({folder.dataset("b.h5", {std::vector<int32_t>(31, 2)}), 3});
  const Sampler sampler(config), again(config);
  EXPECT_EQ(sampler.samples_per_epoch(), 13);
  int64_t from_b = 0;
  for (int64_t n = 0; n < 400; ++n) {
    from_b += sampler.sample(n).tokens[0] == 2;
    EXPECT_LE(std::abs(static_cast<double>(from_b) - 0.75 * static_cast<double>(n + 1)), 1.0);
  }
  for (int64_t n : {399, 5, 123'456'789, 0}) EXPECT_TRUE(same(sampler.sample(n), again.sample(n)));
}

TEST(Sampler, EvaluationReadsInFileOrderOnce) {
  const DataFolder folder;
  SamplerConfig config = config_for(folder.counting_dataset("a.h5", 10, 3, 50), 7);
  config.sources.push_back({folder.counting_dataset("b.h5", 10, 2, 50), 100});
  config.shuffle = false;
  const Sampler sampler(config);
  ASSERT_EQ(sampler.samples_per_epoch(), 4 + 2);
  const std::vector<int32_t> first{0, 7, 14, 21, 0, 7};
  for (int64_t n = 0; n < 6; ++n) EXPECT_EQ(sampler.sample(n).tokens[0], first[n]);
  EXPECT_THROW(sampler.sample(6), Error);
}

TEST(Sampler, RefusesWhatCannotBeSampled) {
  const DataFolder folder;
  EXPECT_THROW(Sampler(config_for(folder.path("missing.h5"), 4)), Error);
  EXPECT_THROW(Sampler(config_for(folder.counting_dataset("a.h5", 10, 1, 50), 10)), Error);
  EXPECT_NO_THROW(Sampler(config_for(folder.counting_dataset("a.h5", 10, 1, 50), 9)));
}

TEST(Loader, HandsOutSamplesInOrderFromAnywhere) {
  const DataFolder folder;
  const auto sampler = std::make_shared<Sampler>(config_for(folder.counting_dataset("a.h5", 9, 23, 50), 10));
  for (int64_t ahead : {0, 1, 5}) {
    Loader loader(sampler, 17, ahead);
    for (int64_t n = 17; n < 60; ++n) {
      EXPECT_EQ(loader.position(), n);
      EXPECT_TRUE(same(loader.next(), sampler->sample(n)));
    }
  }
}

// Two of every six samples from the third on, as the second of three ranks reads a global batch of six.
TEST(Loader, ReadsItsShareOfEveryBatch) {
  const DataFolder folder;
  const auto sampler = std::make_shared<Sampler>(config_for(folder.counting_dataset("a.h5", 9, 23, 50), 10));
  Loader loader(sampler, 12, 4, {2, 2, 6});
  for (const int64_t n : {14, 15, 20, 21, 26, 27}) {
    EXPECT_EQ(loader.position(), n);
    EXPECT_TRUE(same(loader.next(), sampler->sample(n)));
  }
}

TEST(Loader, RethrowsAtTheFailingSampleAndEndsCleanly) {
  const DataFolder folder;
  SamplerConfig config = config_for(folder.counting_dataset("a.h5", 23, 2, 50), 10);
  config.shuffle = false;  // four samples, then an error
  const auto sampler = std::make_shared<Sampler>(config);
  Loader loader(sampler, 0, 8);
  for (int n = 0; n < 4; ++n) EXPECT_NO_THROW(loader.next());
  EXPECT_THROW(loader.next(), Error);
  EXPECT_THROW(loader.next(), Error);
  EXPECT_EQ(loader.position(), 4);
  const Loader unused(sampler, 0, 2);
}

}  // namespace
}  // namespace moba::test
