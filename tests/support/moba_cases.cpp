#include "tests/support/moba_cases.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <ostream>

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Select;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

 private:
  uint64_t state_;
};

std::vector<int32_t> offsets_of(const std::vector<int64_t>& lens) {
  std::vector<int32_t> cu{0};
  for (const int64_t length : lens) cu.push_back(cu.back() + static_cast<int32_t>(length));
  return cu;
}

// Multiples of 1/4 in [-1, 1]: products are multiples of 1/16, and sums of 256 of them stay far below 2^24 units.
float exact_value(Random& random) { return static_cast<float>(static_cast<int64_t>(random.bits() % 9) - 4) / 4.0f; }

// One key vector per block, repeated: its mean is itself for any S. A power of two divides exactly anyway.
void fill_exact_keys(const MobaCase& c, Random& random, std::vector<float>& k) {
  const auto width = static_cast<size_t>(c.Hk * c.D);
  std::vector<float> key(width);
  size_t at = 0;
  for (const int64_t length : c.k_lens)
    for (int64_t t = 0; t < length; ++t) {
      if (t % c.S == 0 || std::has_single_bit(static_cast<uint64_t>(c.S)))
        for (float& x : key) x = exact_value(random);
      for (size_t d = 0; d < width; ++d) k[at++] = key[d];
    }
}

std::vector<MobaCase> build_cases() {
  const auto moba = AttentionType::moba, full = AttentionType::full, window = AttentionType::window;
  std::vector<MobaCase> cases = {
      // Lengths
      {.id = "no_sequence", .k_lens = {}},
      {.id = "only_a_zero_length_sequence", .k_lens = {0}},
      {.id = "zero_length_between_others", .k_lens = {0, 40, 0, 0, 70, 0}},
      {.id = "one_token", .k_lens = {1}},
      {.id = "shorter_than_a_block", .k_lens = {7}},
      {.id = "one_below_a_block", .k_lens = {15}},
      {.id = "exactly_a_block", .k_lens = {16}},
      {.id = "tail_of_one_token", .k_lens = {17}},
      {.id = "tail_of_one_token_later", .k_lens = {16 * 9 + 1}},
      {.id = "whole_blocks", .k_lens = {16 * 8}},
      {.id = "block_of_one_token", .k_lens = {37}, .S = 1, .K = 5},
      {.id = "block_of_one_token_all_chosen", .k_lens = {21}, .S = 1, .K = 64},
      {.id = "odd_block", .k_lens = {131}, .S = 13, .K = 4},
      {.id = "prime_block_and_length", .k_lens = {311}, .S = 37, .K = 3},
      {.id = "block_of_64", .k_lens = {450}, .S = 64, .K = 3},
      {.id = "block_of_65", .k_lens = {450}, .S = 65, .K = 3},
      {.id = "block_of_128", .k_lens = {700}, .S = 128, .K = 3},
      {.id = "packed_odd_lengths", .k_lens = {5, 33, 1, 64, 100, 17}, .H = 4, .Hk = 2},
      // K
      {.id = "topk_1_is_block_local", .k_lens = {100}, .K = 1},
      {.id = "topk_2", .k_lens = {100}, .K = 2},
      {.id = "topk_one_below_blocks", .k_lens = {100}, .K = 6},
      {.id = "topk_equals_blocks_is_dense", .k_lens = {100}, .K = 7},
      {.id = "topk_beyond_blocks", .k_lens = {100}, .K = 10},
      {.id = "topk_64", .k_lens = {400}, .S = 4, .K = 64},
      {.id = "topk_200", .k_lens = {610}, .S = 2, .K = 200},
      {.id = "topk_200_above_blocks", .k_lens = {90, 30}, .S = 4, .K = 200},
      // Head dimension
      {.id = "head_dim_1", .k_lens = {70}, .D = 1},
      {.id = "head_dim_8", .k_lens = {70}, .D = 8},
      {.id = "head_dim_16", .k_lens = {70}, .D = 16},
      {.id = "head_dim_59", .k_lens = {150}, .D = 59},
      {.id = "head_dim_64", .k_lens = {150}, .D = 64},
      {.id = "head_dim_96", .k_lens = {150}, .D = 96},
      {.id = "head_dim_111", .k_lens = {150}, .D = 111},
      {.id = "head_dim_128", .k_lens = {300}, .D = 128, .S = 32},
      {.id = "head_dim_192", .k_lens = {100}, .D = 192},
      {.id = "head_dim_256", .k_lens = {100}, .D = 256},
      // Query groups
      {.id = "group_of_1", .k_lens = {120}, .H = 4, .Hk = 4},
      {.id = "group_of_2", .k_lens = {120}, .H = 4, .Hk = 2},
      {.id = "group_of_4", .k_lens = {120}, .H = 8, .Hk = 2},
      {.id = "group_of_8", .k_lens = {120}, .H = 8, .Hk = 1},
      {.id = "group_of_3", .k_lens = {120}, .H = 6, .Hk = 2},
      {.id = "single_head", .k_lens = {120}, .H = 1, .Hk = 1},
      {.id = "per_group_of_1", .k_lens = {120}, .H = 3, .Hk = 3, .select = Select::per_group},
      {.id = "per_group_of_4", .k_lens = {120}, .H = 8, .Hk = 2, .select = Select::per_group},
      {.id = "per_group_packed", .k_lens = {50, 0, 120}, .H = 6, .Hk = 2, .D = 59, .select = Select::per_group},
      // Fewer queries than keys
      {.id = "decode_one_query", .k_lens = {100}, .q_lens = {1}},
      {.id = "decode_packed", .k_lens = {100, 17, 33, 16}, .q_lens = {1, 1, 1, 1}, .H = 4, .Hk = 1},
      {.id = "chunked_prefill_middle_of_block", .k_lens = {100}, .q_lens = {30}},
      {.id = "chunked_prefill_packed", .k_lens = {100, 40, 64}, .q_lens = {30, 40, 16}, .H = 4, .Hk = 2},
      {.id = "no_query_but_keys", .k_lens = {40, 30}, .q_lens = {0, 30}},
      // Scale and magnitude
      {.id = "scale_not_default", .k_lens = {100}, .scale = 0.37},
      {.id = "scale_1", .k_lens = {100}, .D = 16, .scale = 1},
      {.id = "keys_of_1e4", .k_lens = {200}, .D = 64, .magnitude = 1e4},
      // Other gates
      {.id = "gate_minmax", .k_lens = {200}, .H = 4, .Hk = 2, .gate = Gate::minmax},
      {.id = "gate_minmax_per_group", .k_lens = {200}, .H = 4, .Hk = 2, .gate = Gate::minmax, .select = Select::per_group},
      {.id = "gate_minmax_decode", .k_lens = {200, 50}, .q_lens = {1, 20}, .gate = Gate::minmax},
      {.id = "gate_window", .k_lens = {200, 30}, .gate = Gate::window},
      {.id = "gate_sink", .k_lens = {200, 30}, .K = 4, .gate = Gate::sink},
      {.id = "gate_sink_topk_1", .k_lens = {100}, .K = 1, .gate = Gate::sink},
      {.id = "gate_sink_topk_2", .k_lens = {100}, .K = 2, .gate = Gate::sink},
      {.id = "gate_random", .k_lens = {200, 30}, .H = 4, .Hk = 2, .K = 4, .gate = Gate::random},
      {.id = "gate_random_per_group", .k_lens = {200}, .H = 4, .Hk = 2, .K = 4, .gate = Gate::random, .select = Select::per_group},
      {.id = "gate_oracle", .k_lens = {150}, .H = 4, .Hk = 2, .gate = Gate::oracle},
      {.id = "gate_oracle_per_group", .k_lens = {150}, .H = 4, .Hk = 2, .gate = Gate::oracle, .select = Select::per_group},
      // Full and window attention
      {.id = "full", .k_lens = {150}, .type = full},
      {.id = "full_one_token", .k_lens = {1, 0, 2}, .type = full},
      {.id = "full_grouped_odd_dim", .k_lens = {70, 129}, .H = 8, .Hk = 2, .D = 59, .type = full},
      {.id = "full_long_head_dim_128", .k_lens = {520}, .H = 1, .Hk = 1, .D = 128, .type = full},
      {.id = "full_head_dim_256", .k_lens = {90}, .D = 256, .type = full},
      {.id = "full_decode", .k_lens = {150, 1}, .q_lens = {1, 1}, .type = full},
      {.id = "full_chunked_prefill", .k_lens = {150, 40}, .q_lens = {37, 0}, .H = 4, .Hk = 2, .type = full},
      {.id = "window_1_sees_itself", .k_lens = {70}, .type = window, .window = 1},
      {.id = "window_inside", .k_lens = {150, 20}, .type = window, .window = 29},
      {.id = "window_64", .k_lens = {300}, .type = window, .window = 64},
      {.id = "window_above_length", .k_lens = {90}, .type = window, .window = 1000},
      {.id = "window_decode_grouped", .k_lens = {150, 60}, .q_lens = {1, 33}, .H = 4, .Hk = 2, .D = 111, .type = window, .window = 40},
      // Longer than one work item of any fast variant
      {.id = "several_query_chunks", .k_lens = {2100}, .H = 1, .Hk = 1, .D = 16, .S = 64, .K = 4},
      {.id = "several_query_chunks_grouped", .k_lens = {1300, 700}, .H = 2, .Hk = 1, .D = 24, .S = 100, .K = 3},
  };
  for (MobaCase& c : cases)
    if (c.type != moba) c.K = 1;
  return cases;
}

}  // namespace

double MobaCase::softmax_scale() const { return scale > 0 ? scale : 1.0 / std::sqrt(static_cast<double>(D)); }

const std::vector<MobaCase>& moba_cases() {
  static const std::vector<MobaCase> cases = build_cases();
  return cases;
}

MobaInputs make_inputs(const MobaCase& c, uint64_t seed, bool exact) {
  MobaInputs in{offsets_of(c.queries()), offsets_of(c.k_lens), {}, {}, {}, {}};
  const int64_t q_size = in.tokens_q() * c.H * c.D, k_size = in.tokens_k() * c.Hk * c.D;
  in.q = random_normal(q_size, seed * 4);
  in.k = random_normal(k_size, seed * 4 + 1);
  in.v = random_normal(k_size, seed * 4 + 2);
  in.dout = random_normal(q_size, seed * 4 + 3);
  Random random(seed);
  if (exact) {
    for (float& x : in.q) x = exact_value(random);
    fill_exact_keys(c, random, in.k);
  }
  if (c.magnitude != 1)
    for (float& x : in.k) x *= static_cast<float>(c.magnitude);
  return in;
}

kernels::AttentionShape shape_of(const MobaCase& c, const MobaInputs& inputs) {
  kernels::AttentionShape shape;
  shape.batch = std::ssize(c.k_lens);
  shape.cu_seqlens_q = inputs.cu_q.data();
  shape.cu_seqlens_k = inputs.cu_k.data();
  shape.tokens_q = inputs.tokens_q();
  shape.tokens_k = inputs.tokens_k();
  shape.heads = c.H;
  shape.kv_heads = c.Hk;
  shape.head_dim = c.D;
  return shape;
}

std::vector<bf16> to_bf16_vector(const std::vector<float>& x) {
  std::vector<bf16> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = to_bf16(x[i]);
  return y;
}

std::vector<float> rounded_to_bf16(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = to_float(to_bf16(x[i]));
  return y;
}

std::vector<float> random_normal(int64_t n, uint64_t seed) {
  Random random(seed ^ 0x243f6a8885a308d3u);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) value = static_cast<float>(random.normal());
  return x;
}

void PrintTo(const MobaCase& c, std::ostream* out) { *out << c.id; }

}  // namespace moba::test
