#include "kernels/embedding/embedding.h"

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct Shape {
  int64_t tokens, vocab, cols;
};
constexpr Shape kShapes[] = {{0, 5, 3}, {1, 1, 1}, {7, 3, 5}, {130, 11, 64}, {257, 1000, 131}};

std::vector<int32_t> some_ids(int64_t tokens, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>((t * t * 7 + t) % vocab));
  return ids;
}

TEST(Embedding, ForwardCopiesRows) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes) {
      const Array table = Array::normal(dtype, s.vocab * s.cols, 1);
      const auto ids = some_ids(s.tokens, s.vocab);
      Array y(dtype, s.tokens * s.cols);
      embedding_forward({}, dtype, s.tokens, s.vocab, s.cols, table.data(), ids.data(), y.data());
      const auto all = table.values();
      std::vector<double> want;
      for (int32_t id : ids) want.insert(want.end(), all.begin() + id * s.cols, all.begin() + (id + 1) * s.cols);
      EXPECT_CLOSE_RMS(y.values(), want, 0);
      EXPECT_TRUE(y.guards_intact());
    }
  });
}

TEST(Embedding, BackwardAddsToRows) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Shape& s : kShapes) {
      const auto ids = some_ids(s.tokens, s.vocab);
      const Array dy = Array::normal(dtype, s.tokens * s.cols, 1);
      const Array before = Array::normal(accumulator(dtype), s.vocab * s.cols, 2);
      Array dtable = before;
      embedding_backward({}, dtype, s.tokens, s.vocab, s.cols, dy.data(), ids.data(), dtable.data());
      auto want = before.values(), d = dy.values();
      for (size_t t = 0; t < ids.size(); ++t)
        for (int64_t c = 0; c < s.cols; ++c)
          want[static_cast<size_t>(ids[t] * s.cols + c)] += d[t * static_cast<size_t>(s.cols) + static_cast<size_t>(c)];
      EXPECT_CLOSE_RMS(dtable.values(), want, tolerance(accumulator(dtype)));
      EXPECT_TRUE(dtable.guards_intact());
    }
  });
}

TEST(Embedding, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const auto ids = some_ids(999, 17);
    const Array dy = Array::normal(DType::bf16, 999 * 200, 1);
    Array dtable = Array::zeros(DType::f32, 17 * 200);
    embedding_backward({}, DType::bf16, 999, 17, 200, dy.data(), ids.data(), dtable.data());
    return dtable;
  });
}

TEST(Embedding, NamesThePositionOfAWrongId) {
  const int32_t ids[] = {0, 4, 5}, negative[] = {-1};
  float table[50] = {}, y[30] = {};
  EXPECT_EQ(error_of([&] { embedding_forward({}, DType::f32, 3, 5, 10, table, ids, y); }),
            "embedding: token id 5 at position 2 is outside [0, 5)");
  EXPECT_EQ(error_of([&] { embedding_backward({}, DType::f32, 1, 5, 10, y, negative, table); }),
            "embedding: token id -1 at position 0 is outside [0, 5)");
}

}  // namespace
}  // namespace moba::test
