// Reference kernels are templates over the storage type and compute in fp64; these helpers widen, narrow and choose the type.
#pragma once
#include "kernels/common/check.h"
#include "kernels/common/types.h"

namespace moba::kernels {

inline double widen(float x) { return x; }
inline double widen(double x) { return x; }
inline double widen(bf16 x) { return to_float(x); }

template <class T>
T narrow(double x);
template <>
inline double narrow<double>(double x) {
  return x;
}
template <>
inline float narrow<float>(double x) {
  return static_cast<float>(x);
}
template <>
inline bf16 narrow<bf16>(double x) {
  return to_bf16(static_cast<float>(x));
}

// What a gradient of a parameter of type T is accumulated in.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

// f(T{}) for the floating-point type of `dtype`; any other dtype is an Error that names `op`.
template <class F>
void visit_float(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::bf16: return f(bf16{});
    case DType::f64: return f(double{});
    default: throw Error(fmt::format("{}: dtype {} is not supported; use f32, bf16 or f64", op, dtype_name(dtype)));
  }
}

}  // namespace moba::kernels
