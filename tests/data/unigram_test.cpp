// The add-one unigram baseline against its formula by hand.
#include "src/data/unigram.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/data/data_files.h"

namespace moba::test {
namespace {

TEST(Unigram, EqualsItsFormula) {
  const DataFolder folder;
  const TokenDataset train(folder.dataset("train.h5", {{97, 97, 97, 98, 256}}));
  const TokenDataset test(folder.dataset("test.h5", {{97, 98, 99, 256}}));
  // counts + 1 over 5 tokens + 300 entries of the vocabulary
  const double want = -(std::log(4.0 / 305) + std::log(2.0 / 305) + std::log(1.0 / 305) + std::log(2.0 / 305)) / 4;
  EXPECT_NEAR(unigram_loss(train, test), want, 1e-12);
}

}  // namespace
}  // namespace moba::test
