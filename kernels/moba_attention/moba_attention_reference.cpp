// Attention by plain loops: scores of one query at a time, everything summed in fp64. Oracle for the fast variants, the
// attention of `moba_naive`, and the fallback. Only keys that a query may read are ever loaded.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/moba_attention/moba_attention.h"

namespace moba::kernels {
namespace {

constexpr int64_t kQueriesPerItem = 64;  // enough work to hide the hand-out, short enough to balance

// Four partial sums: the order is fixed and the additions overlap.
template <class T>
double dot(const double* a, const T* b, int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  int64_t d = 0;
  for (; d + 4 <= n; d += 4)
    for (int j = 0; j < 4; ++j) sum[j] += a[d + j] * widen(b[d + j]);
  for (; d < n; ++d) sum[0] += a[d] * widen(b[d]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T>
void load_row(const T* from, int64_t n, double* to) {
  for (int64_t d = 0; d < n; ++d) to[d] = widen(from[d]);
}

template <class T>
void store_row(const double* from, int64_t n, T* to) {
  for (int64_t d = 0; d < n; ++d) to[d] = narrow<T>(from[d]);
}

struct Sequence {
  int64_t q_begin, q_len;  // in [T]
  int64_t k_begin, k_len;  // in [Tk]
};

Sequence sequence_of(const AttentionShape& shape, int64_t s) {
  const int64_t q = shape.cu_seqlens_q[s], k = shape.cu_seqlens_k[s];
  return {q, shape.cu_seqlens_q[s + 1] - q, k, shape.cu_seqlens_k[s + 1] - k};
}

// Calls f(begin, end) for each run of keys, positions within the sequence, that query i reads.
template <class F>
void for_each_key_range(const AttentionArgs& args, const Sequence& sequence, int64_t i, int64_t head, F&& f) {
  const int64_t p = sequence.k_len - sequence.q_len + i;
  if (args.type == AttentionType::full) return f(int64_t{0}, p + 1);
  if (args.type == AttentionType::window) return f(std::max<int64_t>(0, p + 1 - args.window), p + 1);
  const AttentionShape& shape = args.shape;
  const int64_t rows = args.selected_per_group ? shape.kv_heads : shape.heads;
  const int64_t row = args.selected_per_group ? head / (shape.heads / shape.kv_heads) : head;
  const int32_t* selected = args.selected + ((sequence.q_begin + i) * rows + row) * args.slots;
  f(selected[0] * args.chunk_size, p + 1);
  for (int64_t j = 1; j < args.slots; ++j)
    if (selected[j] >= 0) f(selected[j] * args.chunk_size, (selected[j] + 1) * args.chunk_size);
}

struct ForwardScratch {
  std::vector<double> q, sum, scores;
};

template <class T>
void forward_query(const AttentionArgs& args, const Sequence& sequence, int64_t i, int64_t head, ForwardScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const int64_t D = shape.head_dim, stride = shape.kv_heads * D;
  const int64_t first_key = sequence.k_begin * stride + head / (shape.heads / shape.kv_heads) * D;
  const T* k = static_cast<const T*>(args.k) + first_key;
  const T* v = static_cast<const T*>(args.v) + first_key;
  const int64_t row = (sequence.q_begin + i) * shape.heads + head;

  scratch.q.resize(static_cast<size_t>(D));
  scratch.sum.assign(static_cast<size_t>(D), 0.0);
  scratch.scores.clear();
  load_row(static_cast<const T*>(args.q) + row * D, D, scratch.q.data());
  double largest = -HUGE_VAL;
  for_each_key_range(args, sequence, i, head, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double score = args.softmax_scale * dot(scratch.q.data(), k + t * stride, D);
      largest = std::max(largest, score);
      scratch.scores.push_back(score);
    }
  });

  double total = 0;
  const double* score = scratch.scores.data();
  for_each_key_range(args, sequence, i, head, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double weight = std::exp(*score++ - largest);
      const T* value = v + t * stride;
      total += weight;
      for (int64_t d = 0; d < D; ++d) scratch.sum[static_cast<size_t>(d)] += weight * widen(value[d]);
    }
  });
  for (double& x : scratch.sum) x /= total;
  store_row(scratch.sum.data(), D, static_cast<T*>(args.out) + row * D);
  using Lse = Accumulator<T>;  // fp32 except beside f64 tensors
  static_cast<Lse*>(args.lse)[row] = static_cast<Lse>(largest + std::log(total));
}

template <class T>
void forward(const AttentionArgs& args) {
  std::vector<ForwardScratch> scratch(static_cast<size_t>(num_threads()));
  for (int64_t s = 0; s < args.shape.batch; ++s) {
    const Sequence sequence = sequence_of(args.shape, s);
    const int64_t chunks = (sequence.q_len + kQueriesPerItem - 1) / kQueriesPerItem;
    parallel_items(chunks * args.shape.heads, [&](int64_t item, int thread) {
      const int64_t head = item / chunks, begin = item % chunks * kQueriesPerItem;
      const int64_t end = std::min(sequence.q_len, begin + kQueriesPerItem);
      for (int64_t i = begin; i < end; ++i) forward_query<T>(args, sequence, i, head, scratch[static_cast<size_t>(thread)]);
    });
  }
}

struct BackwardScratch {
  std::vector<double> q, dout, dq;  // one row
  std::vector<double> dk, dv;       // [Lk, D] of one (sequence, kv head)
};

template <class T>
void backward_query(const AttentionGradArgs& args, const Sequence& sequence, int64_t i, int64_t head, BackwardScratch& scratch) {
  const AttentionArgs& fwd = args.forward;
  const AttentionShape& shape = fwd.shape;
  const int64_t D = shape.head_dim, stride = shape.kv_heads * D;
  const int64_t first_key = sequence.k_begin * stride + head / (shape.heads / shape.kv_heads) * D;
  const T* k = static_cast<const T*>(fwd.k) + first_key;
  const T* v = static_cast<const T*>(fwd.v) + first_key;
  const int64_t row = (sequence.q_begin + i) * shape.heads + head;
  const double lse = static_cast<const Accumulator<T>*>(fwd.lse)[row];

  load_row(static_cast<const T*>(fwd.q) + row * D, D, scratch.q.data());
  load_row(static_cast<const T*>(args.dout) + row * D, D, scratch.dout.data());
  const double delta = dot(scratch.dout.data(), static_cast<const T*>(fwd.out) + row * D, D);
  std::fill(scratch.dq.begin(), scratch.dq.end(), 0.0);
  const double *q = scratch.q.data(), *dout = scratch.dout.data();
  double* dq = scratch.dq.data();
  for_each_key_range(fwd, sequence, i, head, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* key = k + t * stride;
      const double p = std::exp(fwd.softmax_scale * dot(q, key, D) - lse);
      const double ds = fwd.softmax_scale * p * (dot(dout, v + t * stride, D) - delta);
      double *dk = &scratch.dk[static_cast<size_t>(t * D)], *dv = &scratch.dv[static_cast<size_t>(t * D)];
      for (int64_t d = 0; d < D; ++d) {
        dq[d] += ds * widen(key[d]);
        dk[d] += ds * q[d];
        dv[d] += p * dout[d];
      }
    }
  });
  store_row(dq, D, static_cast<T*>(args.dq) + row * D);
}

// One item per (sequence, kv head): it alone adds to its dK and dV, queries in ascending order.
template <class T>
void backward(const AttentionGradArgs& args) {
  const AttentionShape& shape = args.forward.shape;
  const int64_t D = shape.head_dim, group = shape.heads / shape.kv_heads;
  std::vector<BackwardScratch> all_scratch(static_cast<size_t>(num_threads()));
  parallel_items(shape.batch * shape.kv_heads, [&](int64_t item, int thread) {
    const Sequence sequence = sequence_of(shape, item / shape.kv_heads);
    const int64_t kv_head = item % shape.kv_heads;
    BackwardScratch& scratch = all_scratch[static_cast<size_t>(thread)];
    for (auto* row : {&scratch.q, &scratch.dout, &scratch.dq}) row->resize(static_cast<size_t>(D));
    for (auto* rows : {&scratch.dk, &scratch.dv}) rows->assign(static_cast<size_t>(sequence.k_len * D), 0.0);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t i = 0; i < sequence.q_len; ++i) backward_query<T>(args, sequence, i, head, scratch);
    for (int64_t t = 0; t < sequence.k_len; ++t) {
      const int64_t to = ((sequence.k_begin + t) * shape.kv_heads + kv_head) * D;
      store_row(&scratch.dk[static_cast<size_t>(t * D)], D, static_cast<T*>(args.dk) + to);
      store_row(&scratch.dv[static_cast<size_t>(t * D)], D, static_cast<T*>(args.dv) + to);
    }
  });
}

}  // namespace

void attention_forward_reference(const AttentionArgs& args) {
  validate(args);
  visit_float("attention", args.dtype, [&](auto type) { forward<decltype(type)>(args); });
}

void attention_backward_reference(const AttentionGradArgs& args) {
  validate(args.forward);
  visit_float("attention", args.forward.dtype, [&](auto type) { backward<decltype(type)>(args); });
}

}  // namespace moba::kernels
