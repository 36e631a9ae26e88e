// What MoBA means, in fp64 with an explicit [T, T] mask per head: written from docs/moba.md alone, sharing no code with
// kernels/. For small shapes. Inputs are the exact values the kernel reads (bf16 inputs rounded first).
#pragma once
#include <cstdint>
#include <vector>

#include "tests/support/moba_cases.h"

namespace moba::test {

struct OracleSelection {
  int64_t rows = 0;               // H, or Hk with per_group
  int64_t slots = 0;              // min(K, N of the longest sequence), at least 1
  std::vector<int32_t> selected;  // [T, rows, slots]
};

// Not for gate random, whose choice is the implementation's own.
OracleSelection oracle_select(const MobaCase& c, const MobaInputs& in);

// Gate scores of every history block for query `token` of `row`, index = block (size: own block). mean and minmax only.
std::vector<double> oracle_scores(const MobaCase& c, const MobaInputs& in, int64_t sequence, int64_t query, int64_t row);

struct OracleAttention {
  std::vector<double> out;            // [T, H, D]
  std::vector<double> lse;            // [T, H]
  std::vector<double> dq, dk, dv;     // as q, k, v; from in.dout
  double largest_score = 0;           // max |scale * q . k| over the pairs that are read
  double dq_noise = 0, dk_noise = 0;  // what fp32 sums of dout . v, each off by eps * |dout| |v|, do to the gradients: relative RMS
};

// `selection` is read for type moba only.
OracleAttention oracle_attention(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection);

// The same with every intermediate rounded to bf16 as plain tensor code would (scores and softmax in fp32, P, dS, out and
// gradients rounded to bf16): its error is the yardstick for bf16 kernels.
OracleAttention plain_bf16_attention(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection);

// Precision rule of docs/moba.md: allowed relative RMS per result (lse: absolute and relative to each value) for kernels of dtype
// f32, bf16 or f64. Two effects that no kernel can avoid are added, both below the rule's own figure except beside huge keys:
// a score rounded to the dtype of the sums moves its exponent by eps * |score|, and dout . v - delta cancels.
struct Tolerance {
  double out, dq, dk, dv, lse;
};
Tolerance tolerance_for(DType dtype, const MobaCase& c, const MobaInputs& in, const OracleSelection& selection,
                        const OracleAttention& want);

}  // namespace moba::test
