// The table of shapes that every attention, gate and index kernel goes through; the id says why a row is there. Also the
// inputs of a case: seeded, the same on every machine.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/moba_gate/moba_gate.h"

namespace moba::test {

struct MobaCase {
  std::string id = {};               // the cause, in words joined by _
  std::vector<int64_t> k_lens = {};  // Lk of every sequence
  std::vector<int64_t> q_lens = {};  // Lq; empty = k_lens
  int64_t H = 2, Hk = 2, D = 32;
  int64_t S = 16, K = 3;
  kernels::AttentionType type = kernels::AttentionType::moba;
  kernels::Gate gate = kernels::Gate::mean;
  kernels::Select select = kernels::Select::per_head;
  int64_t window = 0;
  double scale = 0;      // 0 = D^-0.5
  double magnitude = 1;  // of the keys

  const std::vector<int64_t>& queries() const { return q_lens.empty() ? k_lens : q_lens; }
  double softmax_scale() const;
};

// Every row of the section "Cases that must work" that is a shape.
const std::vector<MobaCase>& moba_cases();

// Test values in fp32. `exact`: q and k are multiples of 1/4 with few bits (keys constant within a block unless S is a power of
// two, so that the mean is exact too): no product, sum or score is rounded anywhere, and ties are frequent.
struct MobaInputs {
  std::vector<int32_t> cu_q, cu_k;   // [B+1]
  std::vector<float> q, k, v, dout;  // [T, H, D], [Tk, Hk, D], [Tk, Hk, D], [T, H, D]
  int64_t tokens_q() const { return cu_q.back(); }
  int64_t tokens_k() const { return cu_k.back(); }
};
MobaInputs make_inputs(const MobaCase& c, uint64_t seed, bool exact = false);

// Shape over `inputs`, which must outlive it.
kernels::AttentionShape shape_of(const MobaCase& c, const MobaInputs& inputs);

// Rounds to bf16 and back, in place and as storage.
std::vector<bf16> to_bf16_vector(const std::vector<float>& x);
std::vector<float> rounded_to_bf16(const std::vector<float>& x);

// Seeded normal numbers (SplitMix64 and Box-Muller: the standard library's differ between systems).
std::vector<float> random_normal(int64_t n, uint64_t seed);

// Prints the id where GoogleTest prints a parameter.
void PrintTo(const MobaCase& c, std::ostream* out);

}  // namespace moba::test
