// Routing statistics against hand-counted selections.
#include "src/moba/statistics.h"

#include <gtest/gtest.h>

namespace moba::test {
namespace {

// S = 2, sequences of 5 and 2 tokens, one head, 3 slots.
const std::vector<int32_t> kSelected = {0, -1, -1, 0, -1, -1, 1, 0, -1, 1, 0, -1, 2, 1, 0,  //
                                        0, -1, -1, 0, -1, -1};
PackedSequences two_sequences() {
  const Tensor cu = Tensor::from<int32_t>({0, 5, 7}, {3});
  return {cu, cu};
}

TEST(RoutingStatistics, CountsByHand) {
  RoutingStatistics statistics;
  EXPECT_TRUE(statistics.empty());
  statistics.add(1, Tensor::from<int32_t>(kSelected, {7, 1, 3}), two_sequences(), 2);
  EXPECT_EQ(statistics.layers(), 2);
  EXPECT_TRUE(statistics.heads(0).empty());
  const HeadRouting& head = statistics.heads(1).at(0);
  EXPECT_EQ(head.queries, 7);
  EXPECT_EQ(head.own_entries, 7);
  EXPECT_EQ(head.history_entries, 4);
  EXPECT_DOUBLE_EQ(head.own_share(), 7.0 / 11);
  EXPECT_DOUBLE_EQ(head.mean_distance_blocks(), (1 + 1 + 1 + 2) / 4.0);
  // Middles of blocks 0 and 1 are at 0.5 and 2.5.
  EXPECT_DOUBLE_EQ(head.mean_distance_tokens(), (1.5 + 2.5 + 1.5 + 3.5) / 4);
  EXPECT_EQ(head.chosen, (std::vector<int64_t>{3, 1, 0}));
}

TEST(RoutingStatistics, BatchesAddUp) {
  const Tensor selected = Tensor::from<int32_t>(kSelected, {7, 1, 3});
  RoutingStatistics statistics;
  for (int i = 0; i < 3; ++i) statistics.add(0, selected, two_sequences(), 2);
  EXPECT_EQ(statistics.total().history_entries, 12);
  EXPECT_EQ(statistics.total().chosen, (std::vector<int64_t>{9, 3, 0}));
}

TEST(RoutingStatistics, PartsOfSeveralProcessesMergeToTheWhole) {
  const Tensor selected = Tensor::from<int32_t>(kSelected, {7, 1, 3});
  RoutingStatistics whole, first, second;
  for (RoutingStatistics* s : {&whole, &first}) s->add(0, selected, two_sequences(), 2);
  for (RoutingStatistics* s : {&whole, &second}) s->add(2, selected, two_sequences(), 2);
  RoutingStatistics merged;
  for (const RoutingStatistics& part : {first, second, RoutingStatistics()}) merged.merge(RoutingStatistics::unpacked(part.packed()));
  EXPECT_EQ(merged.packed(), whole.packed());
}

TEST(RoutingStatistics, DecodePositionsBelongToTheKeySequence) {
  RoutingStatistics statistics;
  statistics.add(0, Tensor::from<int32_t>({2, 0}, {1, 1, 2}), one_sequence(1, 6), 2);
  EXPECT_EQ(statistics.total().own_entries, 1);
  EXPECT_DOUBLE_EQ(statistics.total().mean_distance_blocks(), 2);
  EXPECT_DOUBLE_EQ(statistics.total().mean_distance_tokens(), 4.5);
}

TEST(RoutingStatistics, BlockUsePicture) {
  const BlockUse use = block_use(Tensor::from<int32_t>(kSelected, {7, 1, 3}), two_sequences(), 2);
  ASSERT_EQ(use.blocks, 3);
  for (int64_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(use.at(0, i, i), 1);
  EXPECT_FLOAT_EQ(use.at(0, 1, 0), 1);
  EXPECT_FLOAT_EQ(use.at(0, 2, 0), 1);
  EXPECT_FLOAT_EQ(use.at(0, 0, 1), 0);
  EXPECT_EQ(block_use(Tensor::from<int32_t>(kSelected, {7, 1, 3}), two_sequences(), 2, 1).blocks, 1);
}

TEST(RoutingStatistics, WrongArguments) {
  RoutingStatistics statistics;
  const Tensor selected = Tensor::from<int32_t>(kSelected, {7, 1, 3});
  EXPECT_THROW(statistics.add(0, selected, two_sequences(), 0), Error);
  EXPECT_THROW(statistics.add(0, selected, one_sequence(6, 6), 2), Error);
  EXPECT_THROW(block_use(selected, two_sequences(), 2, 2), Error);
}

}  // namespace
}  // namespace moba::test
