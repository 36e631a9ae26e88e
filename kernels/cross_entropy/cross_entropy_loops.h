// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/cross_entropy/cross_entropy_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

constexpr int64_t kBlock = 2048;  // logits per step, 8 KB: the second look at a block (exp) finds it in L1

// One pass over memory: the running sum is rescaled when a block raises the maximum.
SoftmaxSum reduce(int64_t vocab, const float* logits) {
  SoftmaxSum total = {-__builtin_inff(), 0};
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int64_t n = vocab - begin < kBlock ? vocab - begin : kBlock;
    const float* x = logits + begin;
    float max = total.max;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
    const float shift = max == -__builtin_inff() ? 0.0f : max;  // -inf logits count 0 even before the first finite one
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += exp_f32(x[i] - shift);
    const double carried = total.sum * static_cast<double>(exp_f32(total.max - shift));
    total = {max, carried + static_cast<double>(sum)};
  }
  return total;
}

template <class T>
void write(int64_t vocab, const float* logits, float max, float factor, T* out) {
#pragma omp simd
  for (int64_t i = 0; i < vocab; ++i) store(out[i], factor * exp_f32(logits[i] - max));
}

}  // namespace

extern const CrossEntropyLoops cross_entropy_loops = {reduce, write<float>, write<bf16>};

}  // namespace moba::kernels::MOBA_ISA
