// Owners of parameters: every parameter has one, and no rank has much more than another.
#include "src/optim/ownership.h"

#include <gtest/gtest.h>

#include <numeric>

namespace moba::test {
namespace {

TEST(Ownership, LargestFirstToTheRankWithLeast) {
  EXPECT_EQ(assign_owners({10, 90, 60, 40}, 2), (std::vector<int>{0, 0, 1, 1}));
  EXPECT_EQ(assign_owners({5, 5, 5, 5}, 4), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(assign_owners({5, 7}, 1), (std::vector<int>{0, 0}));
  EXPECT_EQ(assign_owners({5}, 4), (std::vector<int>{0})) << "more ranks than parameters";
}

TEST(Ownership, LoadsDifferByNoMoreThanTheLargestParameter) {
  std::vector<int64_t> elements = {32768 * 64};
  for (int layer = 0; layer < 12; ++layer)
    for (const int64_t n : {64, 64, 64 * 64, 64 * 64, 64 * 64, 64 * 64, 64 * 172, 64 * 172, 64 * 172}) elements.push_back(n);
  for (const int ranks : {1, 2, 4, 8}) {
    const std::vector<int64_t> load = owned_elements(elements, assign_owners(elements, ranks), ranks);
    EXPECT_EQ(std::accumulate(load.begin(), load.end(), int64_t{0}), std::accumulate(elements.begin(), elements.end(), int64_t{0}));
    const auto [least, most] = std::minmax_element(load.begin(), load.end());
    EXPECT_LE(*most - *least, 32768 * 64);
  }
}

}  // namespace
}  // namespace moba::test
