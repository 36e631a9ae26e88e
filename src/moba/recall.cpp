#include "src/moba/recall.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/threads.h"
#include "kernels/matmul/matmul.h"

namespace moba {
namespace {

struct RowMass {
  double kept = 0, best = 0, read = 0;
  bool skipping = false;
};

// Rows of one head: queries [begin + first, begin + first + rows) of a sequence that starts at token `begin`.
struct RowBlock {
  int64_t begin = 0, first = 0, rows = 0, head = 0;
  int64_t keys() const { return first + rows; }  // what the last of them may read
};

// scores[r, c] = scale * q_r . k_c, all rows against the keys of the last one.
void score(const Tensor& q, const Tensor& k, const RowBlock& b, std::vector<float>& scores) {
  const int64_t heads = q.size(1), kv_heads = k.size(1), dim = q.size(2);
  kernels::MatmulArgs args;
  args.stream = q.stream();
  args.m = b.rows;
  args.n = b.keys();
  args.k = dim;
  args.transpose_b = true;
  args.lda = heads * dim;
  args.ldb = kv_heads * dim;
  args.ldc = b.keys();
  args.alpha = static_cast<float>(1 / std::sqrt(static_cast<double>(dim)));
  args.a = q.data<float>() + ((b.begin + b.first) * heads + b.head) * dim;
  args.b = k.data<float>() + (b.begin * kv_heads + b.head / (heads / kv_heads)) * dim;
  args.c = scores.data();
  kernels::matmul(args);
}

// prefix[i] = mass of keys 0 .. i-1 of `count`, so that a block is a difference; prefix[count] = 1.
void prefix_masses(const float* scores, int64_t count, std::vector<double>& prefix) {
  const double largest = *std::max_element(scores, scores + count);
  prefix[0] = 0;
  for (int64_t i = 0; i < count; ++i)
    prefix[static_cast<size_t>(i) + 1] = prefix[static_cast<size_t>(i)] + std::exp(static_cast<double>(scores[i]) - largest);
  const double total = prefix[static_cast<size_t>(count)];
  for (int64_t i = 0; i <= count; ++i) prefix[static_cast<size_t>(i)] /= total;
}

RowMass row_mass(const std::vector<double>& prefix, int64_t position, const RecallSetting& s, const int32_t* selected, int64_t slots,
                 std::vector<double>& past) {
  const int64_t own = position / s.chunk_size, count = position + 1;
  const auto block = [&](int64_t b) {
    return prefix[static_cast<size_t>(std::min(count, (b + 1) * s.chunk_size))] - prefix[static_cast<size_t>(b * s.chunk_size)];
  };
  RowMass out;
  int64_t read = 0;
  for (int64_t i = 0; i < slots && selected[i] >= 0; ++i) {
    out.kept += block(selected[i]);
    read += std::min(count, (selected[i] + 1) * s.chunk_size) - selected[i] * s.chunk_size;
  }
  out.read = static_cast<double>(read) / static_cast<double>(count);
  past.clear();
  for (int64_t b = 0; b < own; ++b) past.push_back(block(b));
  const int64_t chosen = std::min(own, s.topk - 1);
  out.skipping = own > chosen;
  std::partial_sort(past.begin(), past.begin() + chosen, past.end(), std::greater<>());
  out.best = block(own);
  for (int64_t i = 0; i < chosen; ++i) out.best += past[static_cast<size_t>(i)];
  return out;
}

void add(MassKept& sum, const RowMass& row) {
  sum.queries += 1;
  if (!row.skipping) return;
  sum.skipping += 1;
  sum.kept += row.kept;
  sum.best += row.best;
  sum.read += row.read;
}

}  // namespace

void MassKept::merge(const MassKept& other) {
  queries += other.queries;
  skipping += other.skipping;
  kept += other.kept;
  best += other.best;
  read += other.read;
}

std::vector<std::vector<MassKept>> mass_kept(const Tensor& q_any, const Tensor& k_any, const PackedSequences& sequences,
                                             const std::vector<RecallSetting>& settings, kernels::Gate gate) {
  const int64_t heads = q_any.size(1), count = static_cast<int64_t>(settings.size());
  std::vector<Tensor> selections;
  for (const RecallSetting& s : settings) {
    AttentionConfig config;
    config.type = kernels::AttentionType::moba;
    config.moba.chunk_size = s.chunk_size;
    config.moba.topk = s.topk;
    config.moba.gate = gate;
    validate(config, "recall");
    selections.push_back(moba_select(q_any, k_any, sequences, config));
  }
  const Tensor q = q_any.to(DType::f32), k = k_any.to(DType::f32);
  std::vector<std::vector<MassKept>> out(settings.size(), std::vector<MassKept>(static_cast<size_t>(heads)));
  std::vector<float> scores;
  std::vector<std::vector<double>> prefix(static_cast<size_t>(num_threads())), past(static_cast<size_t>(num_threads()));
  std::vector<RowMass> rows(static_cast<size_t>(kRecallRows * count));

  const auto run = [&](const RowBlock& b) {
    scores.resize(static_cast<size_t>(b.rows * b.keys()));
    for (auto& p : prefix) p.resize(std::max(p.size(), static_cast<size_t>(b.keys()) + 1));
    score(q, k, b, scores);
    parallel_items(b.rows, [&](int64_t r, int thread) {
      const int64_t position = b.first + r;
      std::vector<double>& masses = prefix[static_cast<size_t>(thread)];
      prefix_masses(scores.data() + r * b.keys(), position + 1, masses);
      for (int64_t i = 0; i < count; ++i) {
        const Tensor& selected = selections[static_cast<size_t>(i)];
        const int64_t slots = selected.size(2);
        const int32_t* choice = selected.data<int32_t>() + ((b.begin + position) * heads + b.head) * slots;
        rows[static_cast<size_t>(r * count + i)] =
            row_mass(masses, position, settings[static_cast<size_t>(i)], choice, slots, past[static_cast<size_t>(thread)]);
      }
    });
    for (int64_t r = 0; r < b.rows; ++r)
      for (int64_t i = 0; i < count; ++i)
        add(out[static_cast<size_t>(i)][static_cast<size_t>(b.head)], rows[static_cast<size_t>(r * count + i)]);
  };

  const int32_t* cu = sequences.cu_seqlens_q.data<int32_t>();
  for (int64_t s = 0; s < sequences.batch(); ++s)
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t first = 0; first < cu[s + 1] - cu[s]; first += kRecallRows)
        run({cu[s], first, std::min(kRecallRows, cu[s + 1] - cu[s] - first), head});
  return out;
}

}  // namespace moba
