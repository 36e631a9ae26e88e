#include "kernels/key_conv/key_conv.h"

#include <limits>

#include "tests/kernels/op_cases.h"

namespace moba::test {
namespace {

using namespace kernels;

struct Case {
  std::vector<int32_t> cu_seqlens;
  int64_t channels, width;
  int64_t tokens() const { return cu_seqlens.back(); }
};

// One token; sequences shorter than the width; empty sequences; borders on, before and after the piece length of 64; many pieces.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {{0}, 4, 3},          {{0, 1}, 1, 1},     {{0, 1, 3, 3, 8}, 5, 3},  {{0, 64, 65, 129}, 33, 5},
      {{0, 63, 200}, 7, 8}, {{0, 300}, 300, 5}, {{0, 0, 130, 130}, 9, 2}, {{0, 5000, 5001, 8300}, 3, 3},
  };
  return all;
}

KeyConvArgs arguments(DType dtype, const Case& c, const Array& k, const Array& w, Array* out) {
  KeyConvArgs a;
  a.dtype = dtype;
  a.batch = static_cast<int64_t>(c.cu_seqlens.size()) - 1;
  a.tokens = c.tokens();
  a.channels = c.channels;
  a.width = c.width;
  a.cu_seqlens = c.cu_seqlens.data();
  a.k = k.data();
  a.weight = w.data();
  a.out = out ? out->data() : nullptr;
  return a;
}

// f(token, first token of its sequence) over all tokens
template <class F>
void for_each_token(const Case& c, F&& f) {
  for (size_t b = 0; b + 1 < c.cu_seqlens.size(); ++b)
    for (int32_t t = c.cu_seqlens[b]; t < c.cu_seqlens[b + 1]; ++t) f(t, c.cu_seqlens[b]);
}

struct Want {
  std::vector<double> out, dk, dweight;
};

Want own_loop(const Case& c, const std::vector<double>& k, const std::vector<double>& w, const std::vector<double>& dout,
              std::vector<double> dweight) {
  Want want{k, dout, std::move(dweight)};
  for_each_token(c, [&](int64_t t, int64_t first) {
    for (int64_t ch = 0; ch < c.channels; ++ch) {
      double u = 0;
      for (int64_t l = 0; l < c.width && t - l >= first; ++l)
        u += w[static_cast<size_t>(ch * c.width + l)] * k[static_cast<size_t>((t - l) * c.channels + ch)];
      const double e = std::exp(-u), s = 1 / (1 + e),
                   du = dout[static_cast<size_t>(t * c.channels + ch)] * (s + u * e / ((1 + e) * (1 + e)));
      want.out[static_cast<size_t>(t * c.channels + ch)] += u * s;
      for (int64_t l = 0; l < c.width && t - l >= first; ++l) {
        want.dk[static_cast<size_t>((t - l) * c.channels + ch)] += w[static_cast<size_t>(ch * c.width + l)] * du;
        want.dweight[static_cast<size_t>(ch * c.width + l)] += k[static_cast<size_t>((t - l) * c.channels + ch)] * du;
      }
    }
  });
  return want;
}

TEST(KeyConv, ForwardAndBackwardEqualOwnLoop) {
  for_each_isa_and_dtype([](DType dtype) {
    for (const Case& c : cases()) {
      const int64_t n = c.tokens() * c.channels;
      const Array k = Array::normal(dtype, n, 1), w = Array::normal(dtype, c.channels * c.width, 2), dout = Array::normal(dtype, n, 3);
      const Array before = Array::normal(accumulator(dtype), c.channels * c.width, 4);
      const Want want = own_loop(c, k.values(), w.values(), dout.values(), before.values());
      Array out(dtype, n), dk(dtype, n), dweight = before;
      KeyConvGradArgs g;
      g.forward = arguments(dtype, c, k, w, &out);
      g.dout = dout.data();
      g.dk = dk.data();
      g.dweight = dweight.data();
      key_conv_forward(g.forward);
      key_conv_backward(g);
      EXPECT_CLOSE_RMS(out.values(), want.out, tolerance(dtype));
      EXPECT_CLOSE_RMS(dk.values(), want.dk, tolerance(dtype));
      EXPECT_CLOSE_RMS(dweight.values(), want.dweight, dtype == DType::f64 ? 1e-13 : 3e-6);
      EXPECT_TRUE(out.guards_intact() && dk.guards_intact() && dweight.guards_intact());
    }
  });
}

TEST(KeyConv, ZeroWeightIsTheIdentity) {
  for_each_isa_and_dtype([](DType dtype) {
    const Case c = {{0, 20, 33}, 6, 3};
    const Array k = Array::normal(dtype, 33 * 6, 1);
    Array out(dtype, 33 * 6);
    key_conv_forward(arguments(dtype, c, k, Array::zeros(dtype, 18), &out));
    EXPECT_CLOSE_RMS(out.values(), k.values(), 0);
  });
}

// Decoding: one sequence in two calls, the second with the last W-1 tokens as history, gives the bits of one call.
TEST(KeyConv, HistoryContinuesASequence) {
  for_each_isa_and_dtype([](DType dtype) {
    constexpr int64_t kChannels = 21, kWidth = 5, kFirst = 70, kSecond = 3;
    const Case whole = {{0, kFirst + kSecond}, kChannels, kWidth}, tail = {{0, kSecond}, kChannels, kWidth};
    const Array k = Array::normal(dtype, (kFirst + kSecond) * kChannels, 1), w = Array::normal(dtype, kChannels * kWidth, 2);
    Array one_call(dtype, k.size()), second_call(dtype, kSecond * kChannels);
    key_conv_forward(arguments(dtype, whole, k, w, &one_call));
    const auto size = static_cast<int64_t>(dtype_size(dtype));
    const char* rows = static_cast<const char*>(k.data());
    KeyConvArgs a = arguments(dtype, tail, k, w, &second_call);
    a.k = rows + kFirst * kChannels * size;
    a.history = rows + (kFirst - (kWidth - 1)) * kChannels * size;
    key_conv_forward(a);
    EXPECT_TRUE(same_bits("tail", second_call.data(), static_cast<const char*>(one_call.data()) + kFirst * kChannels * size,
                          second_call.size_bytes()));
  });
}

TEST(KeyConv, NanDoesNotReachThePastOrOtherSequences) {
  for_each_isa_and_dtype([](DType dtype) {
    const Case c = {{0, 70, 140}, 4, 3};
    Array k = Array::normal(dtype, 140 * 4, 1);
    const Array w = Array::normal(dtype, 12, 2);
    for (int64_t i = 0; i < 4; ++i) k.set(68 * 4 + i, std::numeric_limits<double>::quiet_NaN());
    Array out(dtype, 140 * 4);
    key_conv_forward(arguments(dtype, c, k, w, &out));
    const auto v = out.values();
    for (size_t i = 0; i < v.size(); ++i) EXPECT_EQ(std::isnan(v[i]), i / 4 == 68 || i / 4 == 69) << i / 4;
  });
}

TEST(KeyConv, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([] {
    const Case c = {{0, 900, 5000}, 12, 5};
    const Array k = Array::normal(DType::f32, 60000, 1), w = Array::normal(DType::f32, 60, 2), dout = Array::normal(DType::f32, 60000, 3);
    Array dk(DType::f32, 60000), dweight = Array::zeros(DType::f32, 60);
    KeyConvGradArgs g;
    g.forward = arguments(DType::f32, c, k, w, nullptr);
    g.dout = dout.data();
    g.dk = dk.data();
    g.dweight = dweight.data();
    key_conv_backward(g);
    return dweight;
  });
}

TEST(KeyConv, RefusesWrongArguments) {
  const Array k = Array::normal(DType::f32, 40, 1), w = Array::normal(DType::f32, 12, 2);
  Array out(DType::f32, 40);
  const auto message = [&](const Case& c, int64_t tokens, bool history) {
    KeyConvGradArgs g;
    g.forward = arguments(DType::f32, c, k, w, &out);
    g.forward.tokens = tokens;
    if (history) g.forward.history = k.data();
    return error_of([&] { key_conv_backward(g); });
  };
  EXPECT_EQ(message({{0, 10}, 4, 9}, 10, false), "key_conv: width must be in [1, 8], got 9");
  EXPECT_EQ(message({{0, 5, 3, 10}, 4, 3}, 10, false), "key_conv: cu_seqlens must not decrease, got 3 after 5 at 2");
  EXPECT_EQ(message({{0, 9}, 4, 3}, 10, false), "key_conv: cu_seqlens must end at tokens = 10, got 9");
  EXPECT_NE(message({{0, 10}, 4, 3}, 10, true).find("history"), std::string::npos);
}

}  // namespace
}  // namespace moba::test
