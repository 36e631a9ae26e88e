// The index: query lists per block are an exact partition of the history entries, in ascending order.
#include "kernels/moba_index/moba_index.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

struct Lists {
  std::vector<int32_t> offsets, queries;
};

using IndexFn = int64_t (*)(const kernels::MobaIndexArgs&, int32_t*, int32_t*);

Lists run(IndexFn index, const kernels::MobaIndexArgs& args) {
  GuardedBuffer<int32_t> offsets(std::max<int64_t>(args.blocks, 1)), queries(args.rows * (args.slots - 1));
  const int64_t total = index(args, offsets.data(), queries.data());
  EXPECT_TRUE(offsets.guards_intact());
  EXPECT_TRUE(queries.guards_intact());
  EXPECT_EQ(offsets[offsets.size() - 1], total);
  return {{offsets.data(), offsets.data() + offsets.size()}, {queries.data(), queries.data() + total}};
}

// Rows of one (sequence, row index) of a selection, as the attention kernels read them.
kernels::MobaIndexArgs args_of(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection, int64_t s, int64_t row) {
  kernels::MobaIndexArgs args;
  args.selected = selection.selected.data() + (in.cu_q[static_cast<size_t>(s)] * selection.rows + row) * selection.slots;
  args.row_stride = selection.rows * selection.slots;
  args.rows = c.queries()[static_cast<size_t>(s)];
  args.slots = selection.slots;
  args.blocks = (c.k_lens[static_cast<size_t>(s)] + c.S - 1) / c.S;
  return args;
}

class MobaIndex : public ::testing::TestWithParam<MobaCase> {};

TEST_P(MobaIndex, ListsAreAnExactPartition) {
  const MobaCase& c = GetParam();
  const MobaInputs in = make_inputs(c, 5);
  const OracleSelection selection = run_gate<float>(c, in);
  for (int64_t s = 0; s < std::ssize(c.k_lens); ++s)
    for (int64_t row = 0; row < selection.rows; ++row) {
      const kernels::MobaIndexArgs args = args_of(c, in, selection, s, row);
      const Lists lists = run(kernels::moba_index, args), plain = run(kernels::moba_index_reference, args);
      EXPECT_EQ(lists.offsets, plain.offsets);
      EXPECT_EQ(lists.queries, plain.queries);
      ASSERT_EQ(lists.offsets.front(), 0);
      int64_t entries = 0;
      for (int64_t r = 0; r < args.rows; ++r)
        for (int64_t j = 1; j < args.slots; ++j) {
          const int32_t block = args.selected[r * args.row_stride + j];
          if (block < 0) continue;
          ++entries;
          const auto begin = lists.queries.begin() + lists.offsets[static_cast<size_t>(block)];
          const auto end = lists.queries.begin() + lists.offsets[static_cast<size_t>(block) + 1];
          EXPECT_EQ(std::count(begin, end, r), 1) << "row " << r << " block " << block;
          EXPECT_TRUE(std::is_sorted(begin, end));
        }
      EXPECT_EQ(entries, std::ssize(lists.queries));
    }
}

std::vector<MobaCase> small_moba_cases() {
  std::vector<MobaCase> cases;
  for (const MobaCase& c : moba_cases())
    if (c.type == kernels::AttentionType::moba && make_inputs(c, 1).tokens_q() < 1000) cases.push_back(c);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, MobaIndex, ::testing::ValuesIn(small_moba_cases()), [](const auto& info) { return info.param.id; });

TEST(MobaIndexErrors, ABlockThatIsNoHistoryIsNamed) {
  for (const int32_t wrong : {3, 4, -2}) {
    const std::vector<int32_t> selected = {3, wrong, 0, 3, 1, 2};  // two rows of three slots, four blocks
    const kernels::MobaIndexArgs args{.selected = selected.data(), .row_stride = 3, .rows = 2, .slots = 3, .blocks = 4};
    GuardedBuffer<int32_t> offsets(4), queries(4);
    for (const IndexFn index : {kernels::moba_index, kernels::moba_index_reference}) {
      try {
        index(args, offsets.data(), queries.data());
        FAIL() << "block " << wrong << " was accepted";
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(fmt::format("selected[0, 1] = {}", wrong)), std::string::npos) << e.what();
      }
      EXPECT_TRUE(offsets.untouched());
      EXPECT_TRUE(queries.untouched());
    }
  }
}

TEST(MobaIndexErrors, OneBlockHasNoList) {
  const std::vector<int32_t> selected = {0, 0};
  const kernels::MobaIndexArgs args{.selected = selected.data(), .row_stride = 1, .rows = 2, .slots = 1, .blocks = 1};
  int32_t offset = -1;
  EXPECT_EQ(kernels::moba_index(args, &offset, nullptr), 0);
  EXPECT_EQ(offset, 0);
}

}  // namespace
}  // namespace moba::test
