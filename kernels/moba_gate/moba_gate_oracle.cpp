// Gate `oracle` in fp32: blocks by the share of full attention that they hold. A control for science; it costs Q K^T.
//
// The scores of a tile of queries against all keys up to the last of them are one product; block by block they become log masses.
// Workspace: one tile of scores [kTile, Tk] per thread; bf16 inputs are expanded once.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/moba_gate/moba_gate_cpu.h"

namespace moba::kernels {
namespace {

constexpr int64_t kTile = 64;  // queries
constexpr double kLog2E = 1.4426950408889634;

struct Task {
  int64_t sequence, row, begin, end;  // queries of a sequence, for one row of `selected`
};

struct Scratch {
  std::vector<float> products, masses, shares;
  std::vector<int32_t> candidates;
};

class Oracle {
 public:
  Oracle(const MobaGateArgs& args, const GateLoops& loops)
      : args_(args), loops_(loops), unit_(static_cast<float>(args.softmax_scale * kLog2E)), scratch_(static_cast<size_t>(num_threads())) {
    const AttentionShape& s = args.shape;
    q_ = expanded(args.q, s.tokens_q * s.heads * s.head_dim, q_copy_);
    k_ = expanded(args.k, s.tokens_k * s.kv_heads * s.head_dim, k_copy_);
  }

  void run() {
    std::vector<Task> tasks;
    for (int64_t s = 0; s < args_.shape.batch; ++s) {
      const int64_t q_len = gate_sequence(args_, s).q_len;
      for (int64_t row = 0; row < gate_rows(args_); ++row)
        for (int64_t begin = 0; begin < q_len; begin += kTile) tasks.push_back({s, row, begin, std::min(q_len, begin + kTile)});
    }
    parallel_items(std::ssize(tasks),
                   [&](int64_t item, int thread) { select(tasks[static_cast<size_t>(item)], scratch_[static_cast<size_t>(thread)]); });
  }

 private:
  const float* expanded(const void* x, int64_t n, std::vector<float>& copy) const {
    if (args_.dtype == DType::f32) return static_cast<const float*>(x);
    copy.resize(static_cast<size_t>(n));
    convert(args_.stream, args_.dtype, DType::f32, n, x, copy.data());
    return copy.data();
  }

  // shares [queries, blocks before the last own block] of a task: of one head log masses, which have the same order and never
  // underflow; of several the sum of their shares.
  void select(const Task& t, Scratch& scratch) const {
    const GateSequence sequence = gate_sequence(args_, t.sequence);
    const int64_t heads = heads_per_row(args_), rows = t.end - t.begin;
    const int64_t blocks = (sequence.offset() + t.end - 1) / args_.chunk_size;
    scratch.shares.assign(static_cast<size_t>(rows * blocks), 0.0f);
    if (blocks > 0 && args_.slots > 1)
      for (int64_t g = 0; g < heads; ++g) add_head(sequence, t, t.row * heads + g, blocks, scratch);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t token = sequence.q_begin + t.begin + i, own = (sequence.offset() + t.begin + i) / args_.chunk_size;
      choose(scratch.shares.data() + i * blocks, own, scratch.candidates,
             args_.selected + (token * gate_rows(args_) + t.row) * args_.slots);
    }
  }

  void add_head(const GateSequence& sequence, const Task& t, int64_t head, int64_t blocks, Scratch& scratch) const {
    const AttentionShape& shape = args_.shape;
    const int64_t D = shape.head_dim, kv_head = head / queries_per_kv_head(args_), rows = t.end - t.begin;
    const int64_t keys = sequence.offset() + t.end;
    scratch.products.resize(static_cast<size_t>(rows * keys));
    matmul({.stream = args_.stream,
            .m = rows,
            .n = keys,
            .k = D,
            .transpose_b = true,
            .lda = shape.heads * D,
            .ldb = shape.kv_heads * D,
            .a = q_ + ((sequence.q_begin + t.begin) * shape.heads + head) * D,
            .b = k_ + (sequence.k_begin * shape.kv_heads + kv_head) * D,
            .c = scratch.products.data()});
    scratch.masses.resize(static_cast<size_t>(blocks + 1));
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t p = sequence.offset() + t.begin + i, S = args_.chunk_size, own = p / S;
      const float* scores = scratch.products.data() + i * keys;
      float* masses = scratch.masses.data();
      for (int64_t b = 0; b <= own; ++b) masses[b] = loops_.log2_mass(std::min(S, p + 1 - b * S), scores + b * S, unit_);
      add_shares(masses, own, scratch.shares.data() + i * blocks);
    }
  }

  void add_shares(const float* masses, int64_t own, float* shares) const {
    if (heads_per_row(args_) == 1) {
      std::copy_n(masses, own, shares);
      return;
    }
    float largest = -INFINITY;
    for (int64_t b = 0; b <= own; ++b) largest = masses[b] > largest ? masses[b] : largest;
    float total = 0;
    for (int64_t b = 0; b <= own; ++b) total += std::isnan(masses[b]) ? 0.0f : std::exp2(masses[b] - largest);
    for (int64_t b = 0; b < own; ++b) shares[b] += std::exp2(masses[b] - largest) / total;
  }

  // Own block, then the K-1 of largest share; ties: larger block first; NaN: no candidate.
  void choose(const float* shares, int64_t own, std::vector<int32_t>& candidates, int32_t* row) const {
    candidates.clear();
    for (int64_t b = 0; b < own; ++b)
      if (!std::isnan(shares[b])) candidates.push_back(static_cast<int32_t>(b));
    const auto take = std::min(args_.slots - 1, std::ssize(candidates));
    std::partial_sort(candidates.begin(), candidates.begin() + take, candidates.end(),
                      [&](int32_t a, int32_t b) { return shares[a] != shares[b] ? shares[a] > shares[b] : a > b; });
    *row++ = static_cast<int32_t>(own);
    std::copy_n(candidates.begin(), take, row);
    std::fill(row + take, row + args_.slots - 1, -1);
  }

  const MobaGateArgs& args_;
  const GateLoops& loops_;
  const float unit_;
  const float *q_, *k_;
  std::vector<float> q_copy_, k_copy_;
  std::vector<Scratch> scratch_;
};

}  // namespace

void moba_gate_oracle_cpu(const MobaGateArgs& args, const GateLoops& loops) {
  validate(args);
  Oracle(args, loops).run();
}

}  // namespace moba::kernels
