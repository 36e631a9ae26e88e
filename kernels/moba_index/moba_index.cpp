// Counting sort in two passes over the rows: O(rows * slots + blocks), no scratch beside the outputs.
#include "kernels/moba_index/moba_index.h"

#include <algorithm>
#include <limits>

#include "kernels/common/check.h"

namespace moba::kernels {
namespace {

void check(const MobaIndexArgs& args) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  MOBA_CHECK(args.rows >= 0, "rows = {}; allowed: 0 or more", args.rows);
  MOBA_CHECK(args.slots >= 1, "slots = {}; allowed: 1 or more", args.slots);
  MOBA_CHECK(args.blocks >= 0 && args.blocks <= kMax, "blocks = {}; allowed: 0 .. {}", args.blocks, kMax);
  MOBA_CHECK(args.rows * (args.slots - 1) <= kMax, "rows * (slots - 1) = {} * {}; allowed: at most {} (take a shorter range)", args.rows,
             args.slots - 1, kMax);
  for (int64_t r = 0; r < args.rows; ++r)
    for (int64_t j = 1; j < args.slots; ++j) {
      const int32_t block = args.selected[r * args.row_stride + j];
      MOBA_CHECK(block >= -1 && (block == -1 || block <= args.blocks - 2),
                 "selected[{}, {}] = {} is no history block; allowed: -1 or 0 .. {} (corrupt selection)", r, j, block, args.blocks - 2);
    }
}

}  // namespace

int64_t moba_index(const MobaIndexArgs& args, int32_t* offsets, int32_t* queries) {
  check(args);
  const int64_t lists = std::max<int64_t>(args.blocks - 1, 0);
  std::fill(offsets, offsets + lists + 1, 0);
  for (int64_t r = 0; r < args.rows; ++r)
    for (int64_t j = 1; j < args.slots; ++j)
      if (const int32_t block = args.selected[r * args.row_stride + j]; block >= 0) ++offsets[block];
  int32_t total = 0;
  for (int64_t b = 0; b < lists; ++b) total += offsets[b], offsets[b] = total;
  offsets[lists] = total;
  // Each offset stands at the end of its list; filling from the last row down moves it to the begin, rows ascending.
  for (int64_t r = args.rows - 1; r >= 0; --r)
    for (int64_t j = 1; j < args.slots; ++j)
      if (const int32_t block = args.selected[r * args.row_stride + j]; block >= 0) queries[--offsets[block]] = static_cast<int32_t>(r);
  return total;
}

int64_t moba_index_reference(const MobaIndexArgs& args, int32_t* offsets, int32_t* queries) {
  check(args);
  int32_t total = 0;
  for (int64_t b = 0; b < args.blocks - 1; ++b) {
    offsets[b] = total;
    for (int64_t r = 0; r < args.rows; ++r)
      for (int64_t j = 1; j < args.slots; ++j)
        if (args.selected[r * args.row_stride + j] == b) queries[total++] = static_cast<int32_t>(r);
  }
  offsets[std::max<int64_t>(args.blocks - 1, 0)] = total;
  return total;
}

}  // namespace moba::kernels
