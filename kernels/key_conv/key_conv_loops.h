// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/key_conv/key_conv_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

constexpr int64_t kStrip = 256;  // channels whose running sums stay in L1 while the taps are walked

template <class T>
[[gnu::always_inline]] inline void convolve(int64_t begin, int64_t n, int64_t channels, int64_t width, const float* weight,
                                            const T* const* taps, float* u) {
  for (int64_t i = 0; i < n; ++i) u[i] = 0;
  for (int64_t l = 0; l < width; ++l) {
    if (!taps[l]) continue;
    const float* w = weight + l * channels + begin;
    const T* k = taps[l] + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) u[i] += w[i] * load(k[i]);
  }
}

template <class T>
void forward(int64_t channels, int64_t width, const float* weight, const T* const* taps, T* out) {
  float u[kStrip];
  for (int64_t begin = 0; begin < channels; begin += kStrip) {
    const int64_t n = channels - begin < kStrip ? channels - begin : kStrip;
    convolve(begin, n, channels, width, weight, taps, u);
    const T* k = taps[0] + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(out[begin + i], load(k[i]) + u[i] * sigmoid_f32(u[i]));
  }
}

template <class T>
void backward_taps(int64_t channels, int64_t width, const float* weight, const T* const* taps, const T* dout, float* du, float* dweight) {
  float u[kStrip];
  for (int64_t begin = 0; begin < channels; begin += kStrip) {
    const int64_t n = channels - begin < kStrip ? channels - begin : kStrip;
    convolve(begin, n, channels, width, weight, taps, u);
    float* d = du + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float s = sigmoid_f32(u[i]);
      d[i] = load(dout[begin + i]) * (s + u[i] * s * (1.0f - s));
    }
    if (!dweight) continue;
    for (int64_t l = 0; l < width; ++l) {
      if (!taps[l]) continue;
      float* dw = dweight + l * channels + begin;
      const T* k = taps[l] + begin;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) dw[i] += d[i] * load(k[i]);
    }
  }
}

template <class T>
void backward_input(int64_t channels, int64_t width, const float* weight, const float* const* later, const T* dout, T* dk) {
  float sum[kStrip];
  for (int64_t begin = 0; begin < channels; begin += kStrip) {
    const int64_t n = channels - begin < kStrip ? channels - begin : kStrip;
    convolve(begin, n, channels, width, weight, later, sum);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(dk[begin + i], load(dout[begin + i]) + sum[i]);
  }
}

}  // namespace

extern const KeyConvLoops key_conv_loops = {{forward<float>, backward_taps<float>, backward_input<float>},
                                            {forward<bf16>, backward_taps<bf16>, backward_input<bf16>}};

}  // namespace moba::kernels::MOBA_ISA
