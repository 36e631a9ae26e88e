// The inner loops of the fast gate, one table per instruction set. A tile is `lanes` consecutive queries of one row of
// `selected`, one query per vector lane, against panels of `panel` block summaries that are broadcast:
//   panels [ceil(N/panel)][D][panel], so that a panel is read front to back.
// Every lane does the same arithmetic in the same order wherever it stands, so its result knows no neighbours.
#pragma once
#include "kernels/common/types.h"

namespace moba::kernels {

struct GateTile {
  const float* queries = nullptr;  // [heads, D, lanes]
  const float* low = nullptr;      // panels of the kv head: centroids, or the smallest keys (minmax)
  const float* high = nullptr;     // panels of the largest keys (minmax), else null
  int64_t heads = 1;               // query heads whose scores are added
  int64_t head_dim = 0;            // D
  const int32_t* own = nullptr;    // [lanes] own block; candidates of a lane are the blocks before
  int64_t blocks = 0;              // largest own block of the tile
  int64_t keep = 0;                // K-1
  float* best = nullptr;           // [keep, lanes] scores, descending
  int32_t* best_block = nullptr;   // [keep, lanes] their blocks, -1 where there are fewer
  float* scores = nullptr;         // [blocks rounded up to panels, lanes]; if set, scores are stored and nothing is kept
};

struct GateLoops {
  int64_t lanes, panel;
  void (*tile)(const GateTile& tile);
  // Transposes `count` rows of D elements into [D, lanes] fp32; missing rows repeat the last.
  void (*queries_f32)(const float* rows, int64_t stride, int64_t count, int64_t D, float* out);
  void (*queries_bf16)(const bf16* rows, int64_t stride, int64_t count, int64_t D, float* out);
  // Mean, or bounds, of `count` rows of `width` channels.
  void (*mean_f32)(const float* rows, int64_t count, int64_t width, float* mean);
  void (*mean_bf16)(const bf16* rows, int64_t count, int64_t width, float* mean);
  void (*bounds_f32)(const float* rows, int64_t count, int64_t width, float* low, float* high);
  void (*bounds_bf16)(const bf16* rows, int64_t count, int64_t width, float* low, float* high);
  // log2 of the sum of 2^(unit * score) over n scores, n >= 1; NaN if one is.
  float (*log2_mass)(int64_t n, const float* scores, float unit);
};

namespace sse {
extern const GateLoops gate_loops;
}
namespace avx2 {
extern const GateLoops gate_loops;
}
namespace avx512 {
extern const GateLoops gate_loops;
}

}  // namespace moba::kernels
