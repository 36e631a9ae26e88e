// Sums, maxima and minima of two arrays. Plain loops that the compiler vectorises; they run on the communication thread.
#include <cmath>
#include <cstring>
#include <type_traits>

#include "src/distributed/endpoint.h"

namespace moba {
namespace {

template <class T>
bool is_nan(T x) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(x);
  return false;
}

// NaN wins, so that a broken rank is seen by all.
template <class T>
T larger(T a, T b) {
  return a > b || is_nan(a) ? a : b;
}
template <class T>
T smaller(T a, T b) {
  return a < b || is_nan(a) ? a : b;
}

template <class T, class F>
void each(int64_t n, const void* lower, const void* upper, void* out, F f) {
  const T* a = static_cast<const T*>(lower);
  const T* b = static_cast<const T*>(upper);
  T* y = static_cast<T*>(out);  // may be a or b: element i is read before it is written
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
}

template <class T>
void combine_type(ReduceOp op, int64_t n, const void* a, const void* b, void* y) {
  switch (op) {
    case ReduceOp::sum: return each<T>(n, a, b, y, [](T p, T q) { return static_cast<T>(p + q); });
    case ReduceOp::max: return each<T>(n, a, b, y, larger<T>);
    case ReduceOp::min: return each<T>(n, a, b, y, smaller<T>);
  }
}

// bf16: in fp32, rounded once per addition.
void combine_bf16(ReduceOp op, int64_t n, const void* a, const void* b, void* y) {
  switch (op) {
    case ReduceOp::sum: return each<bf16>(n, a, b, y, [](bf16 p, bf16 q) { return to_bf16(to_float(p) + to_float(q)); });
    case ReduceOp::max: return each<bf16>(n, a, b, y, [](bf16 p, bf16 q) { return to_bf16(larger(to_float(p), to_float(q))); });
    case ReduceOp::min: return each<bf16>(n, a, b, y, [](bf16 p, bf16 q) { return to_bf16(smaller(to_float(p), to_float(q))); });
  }
}

// Wrapping, so that an overflow of integers is defined.
template <class Unsigned, class T>
void combine_integer(ReduceOp op, int64_t n, const void* a, const void* b, void* y) {
  if (op == ReduceOp::sum) return combine_type<Unsigned>(op, n, a, b, y);
  combine_type<T>(op, n, a, b, y);
}

}  // namespace

void combine_host(DType dtype, ReduceOp op, int64_t n, const void* lower, const void* upper, void* out) {
  switch (dtype) {
    case DType::f32: return combine_type<float>(op, n, lower, upper, out);
    case DType::f64: return combine_type<double>(op, n, lower, upper, out);
    case DType::bf16: return combine_bf16(op, n, lower, upper, out);
    case DType::i32: return combine_integer<uint32_t, int32_t>(op, n, lower, upper, out);
    case DType::i64: return combine_integer<uint64_t, int64_t>(op, n, lower, upper, out);
    case DType::u8: return combine_type<uint8_t>(op, n, lower, upper, out);
    case DType::u16: return combine_type<uint16_t>(op, n, lower, upper, out);
    case DType::u32: return combine_type<uint32_t>(op, n, lower, upper, out);
  }
}

void Endpoint::combine(DType dtype, ReduceOp op, int64_t n, const void* lower, const void* upper, void* out) {
  combine_host(dtype, op, n, lower, upper, out);
}

void Endpoint::copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace moba
