#include "kernels/elementwise/elementwise.h"

#include <algorithm>

#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/elementwise/elementwise_cuda.h"
#include "kernels/elementwise/elementwise_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements per piece

void validate(const char* op, const Stream& stream, int64_t n) {
  require_cpu(op, stream);
  MOBA_CHECK(n >= 0, "{}: n must be >= 0, got {}", op, n);
}

// loop(count, pointers of type T at the piece's first element...)
template <class Loop, class... T>
void run(int64_t n, Loop loop, T*... pointers) {
  parallel_for(n, kGrain, [&](int64_t b, int64_t e) { loop(e - b, (pointers + b)...); });
}

template <class T>
const T* in(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
T* out(void* p) {
  return static_cast<T*>(p);
}

// y[i] = f(a[i], b[i]) in fp64.
template <class F>
void binary_reference(const char* op, DType dtype, int64_t n, const void* a, const void* b, void* y, F f) {
  visit_float(op, dtype, [&]<class T>(T) {
    run(
        n,
        [&](int64_t count, const T* pa, const T* pb, T* py) {
          for (int64_t i = 0; i < count; ++i) py[i] = narrow<T>(f(widen(pa[i]), widen(pb[i])));
        },
        in<T>(a), in<T>(b), out<T>(y));
  });
}

// y[i] = f(x[i], y[i]) in fp64, types may differ.
template <class F>
void unary_reference(const char* op, DType from, DType to, int64_t n, const void* x, void* y, F f) {
  visit_float(op, from, [&]<class From>(From) {
    visit_float(op, to, [&]<class To>(To) {
      run(
          n,
          [&](int64_t count, const From* px, To* py) {
            for (int64_t i = 0; i < count; ++i) py[i] = narrow<To>(f(widen(px[i]), py[i]));
          },
          in<From>(x), out<To>(y));
    });
  });
}

}  // namespace

void add(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  if (stream.device == DeviceType::cuda) return cuda::add(stream, dtype, n, a, b, y);
  validate("add", stream, n);
  const ProfileScope profile("add", {.bytes = 3 * bytes_of(n, dtype)});
  if (!use_reference(dtype) && dtype == DType::f32) return run(n, elementwise().add_f32, in<float>(a), in<float>(b), out<float>(y));
  if (!use_reference(dtype) && dtype == DType::bf16) return run(n, elementwise().add_bf16, in<bf16>(a), in<bf16>(b), out<bf16>(y));
  binary_reference("add", dtype, n, a, b, y, [](double p, double q) { return p + q; });
}

void multiply(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  validate("multiply", stream, n);
  const ProfileScope profile("multiply", {.bytes = 3 * bytes_of(n, dtype)});
  if (!use_reference(dtype) && dtype == DType::f32) return run(n, elementwise().multiply_f32, in<float>(a), in<float>(b), out<float>(y));
  if (!use_reference(dtype) && dtype == DType::bf16) return run(n, elementwise().multiply_bf16, in<bf16>(a), in<bf16>(b), out<bf16>(y));
  binary_reference("multiply", dtype, n, a, b, y, [](double p, double q) { return p * q; });
}

void accumulate(const Stream& stream, DType dst_dtype, DType src_dtype, int64_t n, const void* src, void* dst) {
  validate("accumulate", stream, n);
  const ProfileScope profile("accumulate", {.bytes = bytes_of(n, src_dtype) + 2 * bytes_of(n, dst_dtype)});
  const bool fast = !use_reference(dst_dtype) && !use_reference(src_dtype);
  if (fast && dst_dtype == DType::f32 && src_dtype == DType::f32)
    return run(n, elementwise().accumulate_f32_f32, in<float>(src), out<float>(dst));
  if (fast && dst_dtype == DType::f32 && src_dtype == DType::bf16)
    return run(n, elementwise().accumulate_f32_bf16, in<bf16>(src), out<float>(dst));
  if (fast && dst_dtype == DType::bf16 && src_dtype == DType::bf16)
    return run(n, elementwise().accumulate_bf16_bf16, in<bf16>(src), out<bf16>(dst));
  unary_reference("accumulate", src_dtype, dst_dtype, n, src, dst, [](double x, auto y) { return widen(y) + x; });
}

void scale(const Stream& stream, DType dtype, int64_t n, double factor, const void* x, void* y) {
  validate("scale", stream, n);
  const ProfileScope profile("scale", {.bytes = 2 * bytes_of(n, dtype)});
  const auto f = static_cast<float>(factor);
  if (!use_reference(dtype) && dtype == DType::f32)
    return run(
        n, [f](int64_t count, const float* px, float* py) { elementwise().scale_f32(count, f, px, py); }, in<float>(x), out<float>(y));
  if (!use_reference(dtype) && dtype == DType::bf16)
    return run(
        n, [f](int64_t count, const bf16* px, bf16* py) { elementwise().scale_bf16(count, f, px, py); }, in<bf16>(x), out<bf16>(y));
  unary_reference("scale", dtype, dtype, n, x, y, [factor](double v, auto) { return factor * v; });
}

void convert(const Stream& stream, DType from, DType to, int64_t n, const void* x, void* y) {
  if (stream.device == DeviceType::cuda) return cuda::convert(stream, from, to, n, x, y);
  validate("convert", stream, n);
  const ProfileScope profile("convert", {.bytes = bytes_of(n, from) + bytes_of(n, to)});
  const bool fast = !use_reference(from) && !use_reference(to);
  if (fast && from == DType::f32 && to == DType::bf16) return run(n, elementwise().to_bf16, in<float>(x), out<bf16>(y));
  if (fast && from == DType::bf16 && to == DType::f32) return run(n, elementwise().to_f32, in<bf16>(x), out<float>(y));
  unary_reference("convert", from, to, n, x, y, [](double v, auto) { return v; });
}

void fill(const Stream& stream, DType dtype, int64_t n, double value, void* y) {
  if (stream.device == DeviceType::cuda) return cuda::fill(stream, dtype, n, value, y);
  validate("fill", stream, n);
  const ProfileScope profile("fill", {.bytes = bytes_of(n, dtype)});
  const auto fill_with = [&]<class T>(T v) {
    run(
        n, [v](int64_t count, T* p) { std::fill(p, p + count, v); }, out<T>(y));
  };
  switch (dtype) {
    case DType::f32: return fill_with(narrow<float>(value));
    case DType::bf16: return fill_with(narrow<bf16>(value));
    case DType::f64: return fill_with(value);
    case DType::i32: return fill_with(static_cast<int32_t>(value));
    case DType::i64: return fill_with(static_cast<int64_t>(value));
    case DType::u8: return fill_with(static_cast<uint8_t>(value));
    case DType::u16: return fill_with(static_cast<uint16_t>(value));
    case DType::u32: return fill_with(static_cast<uint32_t>(value));
  }
}

}  // namespace moba::kernels
