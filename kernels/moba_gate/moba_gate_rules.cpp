#include "kernels/moba_gate/moba_gate_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/common/check.h"

namespace moba::kernels {
namespace {

// SplitMix64's finaliser (public domain, S. Vigna): a counter in, 64 well mixed bits out.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t random_bits(uint64_t seed, int64_t p, int64_t row_index, int64_t draw) {
  uint64_t x = mix(seed + 0x9e3779b97f4a7c15u);
  for (const int64_t counter : {p, row_index, draw}) x = mix(x + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(counter) + 1));
  return x;
}

// Floyd's sample of `count` distinct blocks out of 0 .. own-1: `count` draws, whatever the length of the history.
void select_random(const MobaGateArgs& args, int64_t p, int64_t row_index, int64_t own, int64_t count, int32_t* history) {
  int32_t* end = history;
  for (int64_t j = own - count; j < own; ++j) {
    const auto draw = static_cast<int32_t>(random_bits(args.seed, p, row_index, j) % static_cast<uint64_t>(j + 1));
    const bool taken = std::find(history, end, draw) != end;
    *end++ = taken ? static_cast<int32_t>(j) : draw;
  }
  std::sort(history, end, std::greater<>());
}

int64_t blocks_of(int64_t length, int64_t chunk_size) { return length == 0 ? 0 : (length - 1) / chunk_size + 1; }

}  // namespace

int64_t moba_slots(const AttentionShape& shape, int64_t chunk_size, int64_t topk) {
  int64_t longest = 0;
  for (int64_t s = 0; s < shape.batch; ++s)
    longest = std::max(longest, blocks_of(shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s], chunk_size));
  return std::max<int64_t>(1, std::min(topk, longest));
}

int64_t moba_centroid_rows(const AttentionShape& shape, int64_t chunk_size) {
  int64_t rows = 0;
  for (int64_t s = 0; s < shape.batch; ++s)
    rows += std::max<int64_t>(0, blocks_of(shape.cu_seqlens_k[s + 1] - shape.cu_seqlens_k[s], chunk_size) - 1);
  return rows;
}

void validate(const MobaGateArgs& args) {
  validate(args.shape);
  MOBA_CHECK(args.dtype == DType::f32 || args.dtype == DType::bf16 || args.dtype == DType::f64, "dtype = {}; allowed: f32, bf16, f64",
             dtype_name(args.dtype));
  MOBA_CHECK(args.chunk_size >= 1, "chunk_size = {}; allowed: 1 or more", args.chunk_size);
  MOBA_CHECK(args.topk >= 1, "topk = {}; allowed: 1 or more (it counts the own block)", args.topk);
  const int64_t slots = moba_slots(args.shape, args.chunk_size, args.topk);
  MOBA_CHECK(args.slots == slots, "slots = {}; must be moba_slots() = {}", args.slots, slots);
  if (args.gate == Gate::oracle)
    MOBA_CHECK(std::isfinite(args.softmax_scale) && args.softmax_scale > 0,
               "softmax_scale = {}; allowed for gate oracle: finite and above 0", args.softmax_scale);
  MOBA_CHECK(args.selected != nullptr || args.shape.tokens_q == 0, "selected is null; allowed: a buffer of [T, {}, {}]", gate_rows(args),
             slots);
  if (!gate_has_scores(args.gate)) return;
  MOBA_CHECK(args.q != nullptr || args.shape.tokens_q == 0, "q is null; gate {} needs it", gate_name(args.gate));
  const bool given = args.gate == Gate::mean && args.centroids != nullptr;
  MOBA_CHECK(given || args.k != nullptr || args.shape.tokens_k == 0, "k is null; gate {} needs it", gate_name(args.gate));
}

GateSequence gate_sequence(const MobaGateArgs& args, int64_t s) {
  const AttentionShape& shape = args.shape;
  const int64_t q = shape.cu_seqlens_q[s], k = shape.cu_seqlens_k[s];
  const int64_t k_len = shape.cu_seqlens_k[s + 1] - k;
  return {q, shape.cu_seqlens_q[s + 1] - q, k, k_len, std::max<int64_t>(0, blocks_of(k_len, args.chunk_size) - 1)};
}

void select_unscored(const MobaGateArgs& args, int64_t p, int64_t row_index, int32_t* row) {
  const int64_t own = p / args.chunk_size, count = std::min(args.slots - 1, own);
  row[0] = static_cast<int32_t>(own);
  std::fill(row + 1, row + args.slots, -1);
  if (args.gate == Gate::random) return select_random(args, p, row_index, own, count, row + 1);
  for (int64_t j = 1; j <= count; ++j) row[j] = static_cast<int32_t>(own - j);
  if (args.gate == Gate::sink && count > 0) row[count] = 0;
}

const char* gate_name(Gate gate) {
  switch (gate) {
    case Gate::mean: return "mean";
    case Gate::minmax: return "minmax";
    case Gate::window: return "window";
    case Gate::sink: return "sink";
    case Gate::random: return "random";
    case Gate::oracle: return "oracle";
  }
  return "?";
}

const char* select_name(Select select) { return select == Select::per_group ? "per_group" : "per_head"; }

}  // namespace moba::kernels
