#include "kernels/key_conv/key_conv.h"

#include <algorithm>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/key_conv/key_conv_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kTokensPerPiece = 64;
constexpr int64_t kMostPartials = 64;  // backward: token pieces, each with its own fp32 copy of dweight

const KeyConvLoops& loops() { return pick_isa(sse::key_conv_loops, avx2::key_conv_loops, avx512::key_conv_loops); }

void validate(const KeyConvArgs& a) {
  require_cpu("key_conv", a.stream);
  MOBA_CHECK(a.dtype == DType::f32 || a.dtype == DType::bf16 || a.dtype == DType::f64,
             "key_conv: dtype {} is not supported; use f32, bf16 or f64", dtype_name(a.dtype));
  MOBA_CHECK(a.width >= 1 && a.width <= kKeyConvMaxWidth, "key_conv: width must be in [1, {}], got {}", kKeyConvMaxWidth, a.width);
  MOBA_CHECK(a.batch >= 0 && a.tokens >= 0 && a.channels >= 1, "key_conv: batch and tokens must be >= 0 and channels >= 1, got {}, {}, {}",
             a.batch, a.tokens, a.channels);
  MOBA_CHECK(a.cu_seqlens[0] == 0, "key_conv: cu_seqlens[0] must be 0, got {}", a.cu_seqlens[0]);
  for (int64_t b = 0; b < a.batch; ++b)
    MOBA_CHECK(a.cu_seqlens[b] <= a.cu_seqlens[b + 1], "key_conv: cu_seqlens must not decrease, got {} after {} at {}", a.cu_seqlens[b + 1],
               a.cu_seqlens[b], b + 1);
  MOBA_CHECK(a.cu_seqlens[a.batch] == a.tokens, "key_conv: cu_seqlens must end at tokens = {}, got {}", a.tokens, a.cu_seqlens[a.batch]);
}

// [channels, W] -> fp32 [W, channels], so that channels are contiguous.
template <class T>
std::vector<float> transposed_weight(const KeyConvArgs& a) {
  std::vector<float> w(static_cast<size_t>(a.width * a.channels));
  for (int64_t c = 0; c < a.channels; ++c)
    for (int64_t l = 0; l < a.width; ++l)
      w[static_cast<size_t>(l * a.channels + c)] = to_float(static_cast<const T*>(a.weight)[c * a.width + l]);
  return w;
}

// taps[l] = row of k_{t-l} in sequence b, from history before its first token, or null.
template <class T>
void find_taps(const KeyConvArgs& a, int64_t b, int64_t t, const T** taps) {
  const int64_t first = a.cu_seqlens[b];
  for (int64_t l = 0; l < a.width; ++l) {
    if (t - l >= first)
      taps[l] = static_cast<const T*>(a.k) + (t - l) * a.channels;
    else
      taps[l] = a.history ? static_cast<const T*>(a.history) + (b * (a.width - 1) + (a.width - 1) + (t - l - first)) * a.channels : nullptr;
  }
}

// f(sequence, begin, end) for the parts of [begin, end) that lie in one sequence.
template <class F>
void for_each_sequence_part(const KeyConvArgs& a, int64_t begin, int64_t end, F&& f) {
  int64_t b = std::upper_bound(a.cu_seqlens, a.cu_seqlens + a.batch + 1, begin) - a.cu_seqlens - 1;
  for (; begin < end; ++b) {
    const int64_t stop = std::min<int64_t>(end, a.cu_seqlens[b + 1]);
    if (stop > begin) f(b, begin, stop);
    begin = std::max(begin, stop);
  }
}

template <class T>
void forward(const KeyConvArgs& a, const KeyConvRows<T>& loop) {
  const std::vector<float> weight = transposed_weight<T>(a);
  parallel_for(a.tokens, kTokensPerPiece, [&](int64_t piece_begin, int64_t piece_end) {
    for_each_sequence_part(a, piece_begin, piece_end, [&](int64_t b, int64_t begin, int64_t end) {
      const T* taps[kKeyConvMaxWidth];
      for (int64_t t = begin; t < end; ++t) {
        find_taps<T>(a, b, t, taps);
        loop.forward(a.channels, a.width, weight.data(), taps, static_cast<T*>(a.out) + t * a.channels);
      }
    });
  });
}

// dk of tokens [begin, end) of sequence b needs du of up to W-1 tokens after them, which are computed here again.
template <class T>
void backward_part(const KeyConvGradArgs& g, const KeyConvRows<T>& loop, const float* weight, int64_t b, int64_t begin, int64_t end,
                   float* du, float* dweight) {
  const KeyConvArgs& a = g.forward;
  const T* dout = static_cast<const T*>(g.dout);
  const int64_t du_end = std::min<int64_t>(end + a.width - 1, a.cu_seqlens[b + 1]);
  const T* taps[kKeyConvMaxWidth];
  for (int64_t t = begin; t < du_end; ++t) {
    find_taps<T>(a, b, t, taps);
    loop.backward_taps(a.channels, a.width, weight, taps, dout + t * a.channels, du + (t - begin) * a.channels,
                       t < end ? dweight : nullptr);
  }
  const float* later[kKeyConvMaxWidth];
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t l = 0; l < a.width; ++l) later[l] = t + l < du_end ? du + (t + l - begin) * a.channels : nullptr;
    loop.backward_input(a.channels, a.width, weight, later, dout + t * a.channels, static_cast<T*>(g.dk) + t * a.channels);
  }
}

template <class T>
void backward(const KeyConvGradArgs& g, const KeyConvRows<T>& loop) {
  const KeyConvArgs& a = g.forward;
  const std::vector<float> weight = transposed_weight<T>(a);
  const int64_t groups = (a.tokens + kTokensPerPiece - 1) / kTokensPerPiece;
  const int64_t piece = kTokensPerPiece * std::max<int64_t>(1, (groups + kMostPartials - 1) / kMostPartials);
  const int64_t pieces = (a.tokens + piece - 1) / piece, weight_size = a.width * a.channels;
  std::vector<float> partial(static_cast<size_t>(pieces * weight_size), 0.0f);
  parallel_for(a.tokens, piece, [&](int64_t piece_begin, int64_t piece_end) {
    std::vector<float> du(static_cast<size_t>((kTokensPerPiece + a.width - 1) * a.channels));
    float* dweight = partial.data() + piece_begin / piece * weight_size;
    for (int64_t t = piece_begin; t < piece_end; t += kTokensPerPiece)
      for_each_sequence_part(a, t, std::min(piece_end, t + kTokensPerPiece), [&](int64_t b, int64_t begin, int64_t end) {
        backward_part<T>(g, loop, weight.data(), b, begin, end, du.data(), dweight);
      });
  });
  auto* dweight = static_cast<float*>(g.dweight);
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t c = 0; c < a.channels; ++c)
      for (int64_t l = 0; l < a.width; ++l) dweight[c * a.width + l] += partial[static_cast<size_t>(p * weight_size + l * a.channels + c)];
}

}  // namespace

void key_conv_forward(const KeyConvArgs& a) {
  validate(a);
  const ProfileScope profile("key_conv forward", {.bytes = 2 * bytes_of(a.tokens * a.channels, a.dtype)});
  if (use_reference(a.dtype)) return key_conv_forward_reference(a);
  if (a.dtype == DType::f32) return forward<float>(a, loops().f32);
  forward<bf16>(a, loops().b16);
}

void key_conv_backward(const KeyConvGradArgs& g) {
  validate(g.forward);
  MOBA_CHECK(!g.forward.history, "key_conv: the backward pass takes no history; it serves decoding only");
  const ProfileScope profile("key_conv backward", {.bytes = 3 * bytes_of(g.forward.tokens * g.forward.channels, g.forward.dtype)});
  if (use_reference(g.forward.dtype)) return key_conv_backward_reference(g);
  if (g.forward.dtype == DType::f32) return backward<float>(g, loops().f32);
  backward<bf16>(g, loops().b16);
}

}  // namespace moba::kernels
