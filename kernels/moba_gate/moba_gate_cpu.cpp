// Drives the loops of moba_gate_lanes.h: block summaries of the whole batch first (parallel over blocks), then tiles of
// queries (parallel over sequence, row and query chunk). Workspace: the summaries [N, Hk, D] and one tile per thread.
#include "kernels/moba_gate/moba_gate_cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/threads.h"

namespace moba::kernels {
namespace {

constexpr int64_t kQueriesPerItem = 256;  // a multiple of every tile; long enough to hide the hand-out
constexpr int64_t kMaxKept = 32;          // above this, insertion loses to storing the scores of a tile and sorting them

struct BlockTask {
  int64_t sequence, block;
};

std::vector<BlockTask> blocks_of_batch(const MobaGateArgs& args, bool only_queried) {
  std::vector<BlockTask> tasks;
  for (int64_t s = 0; s < args.shape.batch; ++s) {
    const GateSequence sequence = gate_sequence(args, s);
    if (only_queried && sequence.q_len == 0) continue;
    for (int64_t b = 0; b < sequence.history; ++b) tasks.push_back({s, b});
  }
  return tasks;
}

void block_mean(const MobaGateArgs& args, const GateLoops& loops, int64_t first_key, float* mean) {
  const int64_t width = args.shape.kv_heads * args.shape.head_dim, at = first_key * width;
  if (args.dtype == DType::bf16)
    loops.mean_bf16(static_cast<const bf16*>(args.k) + at, args.chunk_size, width, mean);
  else
    loops.mean_f32(static_cast<const float*>(args.k) + at, args.chunk_size, width, mean);
}

void block_bounds(const MobaGateArgs& args, const GateLoops& loops, int64_t first_key, float* low, float* high) {
  const int64_t width = args.shape.kv_heads * args.shape.head_dim, at = first_key * width;
  if (args.dtype == DType::bf16)
    loops.bounds_bf16(static_cast<const bf16*>(args.k) + at, args.chunk_size, width, low, high);
  else
    loops.bounds_f32(static_cast<const float*>(args.k) + at, args.chunk_size, width, low, high);
}

// Summaries of every block that some query may choose, as panels: sequence, kv head, panel, D, lane of the panel.
class Panels {
 public:
  Panels(const MobaGateArgs& args, const GateLoops& loops) : args_(args), panel_(loops.panel), width_(args.shape.head_dim * loops.panel) {
    int64_t panels = 0, rows = 0;
    for (int64_t s = 0; s < args.shape.batch; ++s) {
      const int64_t history = gate_sequence(args, s).history;
      first_panel_.push_back(panels);
      first_row_.push_back(rows);
      panels += (history + panel_ - 1) / panel_ * args.shape.kv_heads;
      rows += history;
    }
    low_.assign(static_cast<size_t>(panels * width_), 0.0f);
    if (args.gate == Gate::minmax) high_ = low_;
    fill(loops);
  }

  const float* low(int64_t s, int64_t kv_head) const { return low_.data() + at(s, kv_head); }
  const float* high(int64_t s, int64_t kv_head) const { return high_.empty() ? nullptr : high_.data() + at(s, kv_head); }

 private:
  int64_t at(int64_t s, int64_t kv_head) const {
    const int64_t per_head = (gate_sequence(args_, s).history + panel_ - 1) / panel_;
    return (first_panel_[static_cast<size_t>(s)] + kv_head * per_head) * width_;
  }

  void fill(const GateLoops& loops) {
    const std::vector<BlockTask> tasks = blocks_of_batch(args_, true);
    const auto row_size = static_cast<size_t>(args_.shape.kv_heads * args_.shape.head_dim);
    std::vector<std::vector<float>> scratch(static_cast<size_t>(num_threads()));
    parallel_items(std::ssize(tasks), [&](int64_t item, int thread) {
      const BlockTask task = tasks[static_cast<size_t>(item)];
      std::vector<float>& row = scratch[static_cast<size_t>(thread)];
      row.resize(2 * row_size);
      const int64_t first_key = gate_sequence(args_, task.sequence).k_begin + task.block * args_.chunk_size;
      if (args_.gate == Gate::minmax) {
        block_bounds(args_, loops, first_key, row.data(), row.data() + row_size);
        scatter(task, row.data() + row_size, high_);
      } else if (args_.centroids != nullptr) {
        const int64_t index = first_row_[static_cast<size_t>(task.sequence)] + task.block;
        std::copy_n(args_.centroids + index * static_cast<int64_t>(row_size), row_size, row.data());
      } else {
        block_mean(args_, loops, first_key, row.data());
      }
      scatter(task, row.data(), low_);
    });
  }

  void scatter(const BlockTask& task, const float* row, std::vector<float>& panels) const {
    const int64_t D = args_.shape.head_dim;
    for (int64_t h = 0; h < args_.shape.kv_heads; ++h) {
      float* to = panels.data() + at(task.sequence, h) + task.block / panel_ * width_ + task.block % panel_;
      for (int64_t d = 0; d < D; ++d) to[d * panel_] = row[h * D + d];
    }
  }

  const MobaGateArgs& args_;
  int64_t panel_, width_;
  std::vector<int64_t> first_panel_, first_row_;
  std::vector<float> low_, high_;
};

struct Scratch {
  std::vector<float> queries, best, scores;
  std::vector<int32_t> own, best_block;
  std::vector<int32_t> candidates;
};

// Row of one query out of the scores of its tile, for large K.
void select_by_sorting(const MobaGateArgs& args, const float* scores, int64_t lanes, int64_t own, std::vector<int32_t>& candidates,
                       int32_t* row) {
  candidates.clear();
  for (int64_t b = 0; b < own; ++b)
    if (!std::isnan(scores[b * lanes])) candidates.push_back(static_cast<int32_t>(b));
  const auto take = std::min(args.slots - 1, std::ssize(candidates));
  std::partial_sort(candidates.begin(), candidates.begin() + take, candidates.end(), [&](int32_t a, int32_t b) {
    const float score_a = scores[a * lanes], score_b = scores[b * lanes];
    return score_a != score_b ? score_a > score_b : a > b;
  });
  std::copy_n(candidates.begin(), take, row);
  std::fill(row + take, row + args.slots - 1, -1);
}

void load_queries(const MobaGateArgs& args, const GateLoops& loops, int64_t token, int64_t head, int64_t count, float* out) {
  const int64_t stride = args.shape.heads * args.shape.head_dim, at = token * stride + head * args.shape.head_dim;
  if (args.dtype == DType::bf16)
    loops.queries_bf16(static_cast<const bf16*>(args.q) + at, stride, count, args.shape.head_dim, out);
  else
    loops.queries_f32(static_cast<const float*>(args.q) + at, stride, count, args.shape.head_dim, out);
}

// Queries [begin, begin + count) of a sequence, count <= lanes, for one row of `selected`.
void select_tile(const MobaGateArgs& args, const GateLoops& loops, const Panels& panels, int64_t s, int64_t row_index, int64_t begin,
                 int64_t count, Scratch& scratch) {
  const GateSequence sequence = gate_sequence(args, s);
  const int64_t lanes = loops.lanes, D = args.shape.head_dim, heads = heads_per_row(args), keep = args.slots - 1;
  const int64_t kv_head = row_index * heads / queries_per_kv_head(args), token = sequence.q_begin + begin;
  const bool sorting = keep > kMaxKept;

  scratch.queries.resize(static_cast<size_t>(heads * D * lanes));
  scratch.own.resize(static_cast<size_t>(lanes));
  for (int64_t i = 0; i < lanes; ++i)
    scratch.own[static_cast<size_t>(i)] = static_cast<int32_t>((sequence.offset() + begin + std::min(i, count - 1)) / args.chunk_size);
  GateTile tile;
  tile.blocks = scratch.own.back();
  if (keep > 0 && tile.blocks > 0) {
    for (int64_t g = 0; g < heads; ++g)
      load_queries(args, loops, token, row_index * heads + g, count, scratch.queries.data() + g * D * lanes);
    tile.queries = scratch.queries.data();
    tile.low = panels.low(s, kv_head);
    tile.high = panels.high(s, kv_head);
    tile.heads = heads;
    tile.head_dim = D;
    tile.own = scratch.own.data();
    tile.keep = keep;
    if (sorting) {
      scratch.scores.resize(static_cast<size_t>((tile.blocks + loops.panel) * lanes));
      tile.scores = scratch.scores.data();
    } else {
      scratch.best.resize(static_cast<size_t>(keep * lanes));
      scratch.best_block.resize(static_cast<size_t>(keep * lanes));
      tile.best = scratch.best.data();
      tile.best_block = scratch.best_block.data();
    }
    loops.tile(tile);
  }

  for (int64_t i = 0; i < count; ++i) {
    int32_t* row = args.selected + ((token + i) * gate_rows(args) + row_index) * args.slots;
    *row++ = scratch.own[static_cast<size_t>(i)];
    if (tile.blocks == 0)
      std::fill_n(row, keep, -1);
    else if (sorting)
      select_by_sorting(args, tile.scores + i, lanes, scratch.own[static_cast<size_t>(i)], scratch.candidates, row);
    else
      for (int64_t j = 0; j < keep; ++j) row[j] = tile.best_block[j * lanes + i];
  }
}

struct QueryTask {
  int64_t sequence, row, begin, end;
};

}  // namespace

void moba_gate_cpu(const MobaGateArgs& args, const GateLoops& loops) {
  validate(args);
  std::vector<QueryTask> tasks;
  for (int64_t s = 0; s < args.shape.batch; ++s) {
    const int64_t q_len = gate_sequence(args, s).q_len;
    for (int64_t row = 0; row < gate_rows(args); ++row)
      for (int64_t begin = 0; begin < q_len; begin += kQueriesPerItem)
        tasks.push_back({s, row, begin, std::min(q_len, begin + kQueriesPerItem)});
  }
  const Panels panels(args, loops);
  std::vector<Scratch> scratch(static_cast<size_t>(num_threads()));
  parallel_items(std::ssize(tasks), [&](int64_t item, int thread) {
    const QueryTask& task = tasks[static_cast<size_t>(item)];
    for (int64_t begin = task.begin; begin < task.end; begin += loops.lanes)
      select_tile(args, loops, panels, task.sequence, task.row, begin, std::min(loops.lanes, task.end - begin),
                  scratch[static_cast<size_t>(thread)]);
  });
}

void moba_centroids_cpu(const MobaGateArgs& args, const GateLoops& loops, float* centroids) {
  validate(args.shape);
  const std::vector<BlockTask> tasks = blocks_of_batch(args, false);
  const int64_t width = args.shape.kv_heads * args.shape.head_dim;
  parallel_items(std::ssize(tasks), [&](int64_t item, int) {
    const BlockTask task = tasks[static_cast<size_t>(item)];
    block_mean(args, loops, gate_sequence(args, task.sequence).k_begin + task.block * args.chunk_size, centroids + item * width);
  });
}

}  // namespace moba::kernels
