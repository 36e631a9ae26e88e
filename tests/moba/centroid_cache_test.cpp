// Sparse decode's cached centroids choose the blocks that routing over all keys chooses.
#include "src/moba/centroid_cache.h"

#include <gtest/gtest.h>

#include "src/autograd/rng.h"

namespace moba::test {
namespace {

Tensor random_tensor(Shape shape, DType dtype, uint64_t stream) {
  Tensor t = Tensor::empty(std::move(shape), DType::f32);
  fill_normal(t, 0, 1, 9, stream);
  return t.to(dtype);
}

AttentionConfig moba_config(int64_t chunk_size, int64_t topk, kernels::Gate gate = kernels::Gate::mean) {
  return {.type = kernels::AttentionType::moba, .moba = {.chunk_size = chunk_size, .topk = topk, .gate = gate}};
}

class CentroidCacheCase : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, CentroidCacheCase, ::testing::Values(DType::f32, DType::bf16, DType::f64),
                         [](const auto& info) { return dtype_name(info.param); });

TEST_P(CentroidCacheCase, SelectsWhatTheGateSelects) {
  constexpr int64_t kLength = 150, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
  const Tensor q = random_tensor({kLength, kHeads, kHeadDim}, GetParam(), 1),
               k = random_tensor({kLength, kKvHeads, kHeadDim}, GetParam(), 2);
  for (AttentionConfig config :
       {moba_config(8, 3), moba_config(1, 5), moba_config(7, 1), moba_config(5, 100), moba_config(8, 3, kernels::Gate::minmax),
        moba_config(8, 3, kernels::Gate::random), moba_config(8, 3, kernels::Gate::sink)}) {
    for (const auto select : {kernels::Select::per_head, kernels::Select::per_group}) {
      config.moba.select = select;
      CentroidCache cache;
      // Prefill of 20 tokens, then one token after the other, with a jump in between.
      for (int64_t length = 20; length <= kLength; length += length == 60 ? 30 : 1) {
        const Tensor keys = k.rows(0, length), query = q.rows(length - 1, length);
        const Tensor got = cache.select(query, keys, config), want = moba_select(query, keys, one_sequence(1, length), config);
        ASSERT_EQ(got.shape(), want.shape());
        ASSERT_EQ(got.to_vector<int32_t>(), want.to_vector<int32_t>()) << describe(config) << " length " << length;
      }
    }
  }
}

TEST(CentroidCache, ClearsAndRefusesShrinking) {
  const Tensor q = random_tensor({1, 2, 8}, DType::f32, 1), k = random_tensor({40, 2, 8}, DType::f32, 2),
               other = random_tensor({40, 2, 8}, DType::f32, 3);
  CentroidCache cache;
  cache.select(q, k, moba_config(4, 3));
  EXPECT_THROW(cache.select(q, k.rows(0, 10), moba_config(4, 3)), Error);
  cache.clear();
  const auto want = moba_select(q, other, one_sequence(1, 40), moba_config(4, 3)).to_vector<int32_t>();
  EXPECT_EQ(cache.select(q, other, moba_config(4, 3)).to_vector<int32_t>(), want);
  const auto coarse = moba_select(q, other, one_sequence(1, 40), moba_config(8, 3)).to_vector<int32_t>();
  EXPECT_EQ(cache.select(q, other, moba_config(8, 3)).to_vector<int32_t>(), coarse) << "another S starts anew";
}

}  // namespace
}  // namespace moba::test
