#include "src/autograd/rng.h"

#include <cmath>

#include "kernels/common/threads.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Rng, PhiloxKnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, StateResumesTheSequence) {
  Rng a(7, hash_name("sampling"));
  for (int i = 0; i < 5; ++i) a.normal();
  Rng b(a.state());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(a.bits(), b.bits());
  EXPECT_NE(Rng(7, 1).bits(), Rng(7, 2).bits());
  EXPECT_NE(Rng(7, 1).bits(), Rng(8, 1).bits());
}

TEST(Rng, BoundsAndMoments) {
  Rng rng(1);
  double sum = 0, squares = 0;
  std::array<int, 3> counts{};
  for (int i = 0; i < 30000; ++i) {
    const double u = rng.uniform(), n = rng.normal();
    ASSERT_TRUE(0 <= u && u < 1);
    sum += n;
    squares += n * n;
    ++counts[rng.below(3)];
  }
  EXPECT_NEAR(sum / 30000, 0, 0.03);
  EXPECT_NEAR(squares / 30000, 1, 0.03);
  for (int c : counts) EXPECT_NEAR(c, 10000, 400);
}

TEST(Rng, FillsMomentsAndBounds) {
  const Tensor n = Tensor::empty({100001}, DType::f32), u = Tensor::empty({100001}, DType::f32);
  fill_normal(n, 2, 0.5, 3, 4);
  fill_uniform(u, -1, 3, 3, 4);
  double mean = 0, variance = 0, mean_u = 0;
  for (float x : n.to_vector<float>()) mean += x / 100001, variance += (x - 2) * (x - 2) / 100001;
  for (float x : u.to_vector<float>()) {
    mean_u += x / 100001;
    ASSERT_TRUE(-1 <= x && x <= 3);
  }
  EXPECT_NEAR(mean, 2, 0.01);
  EXPECT_NEAR(variance, 0.25, 0.01);
  EXPECT_NEAR(mean_u, 1, 0.02);
}

TEST(Rng, SameBitsForAnyThreadsAndSplit) {
  const int threads = num_threads();
  Tensor first;
  for (int t : {1, 2, 4}) {
    set_num_threads(t);
    const Tensor now = Tensor::empty({70003}, DType::f32);
    fill_normal(now, 0, 1, 5, 6);
    if (!first.defined()) first = now;
    EXPECT_TRUE(same_bits("normal", now.raw(), first.raw(), static_cast<size_t>(now.nbytes()))) << t;
  }
  set_num_threads(threads);
  const Tensor shorter = Tensor::empty({17}, DType::f32);
  fill_normal(shorter, 0, 1, 5, 6);
  EXPECT_TRUE(same_bits("prefix", shorter.raw(), first.raw(), 17 * 4));
}

}  // namespace
}  // namespace moba::test
