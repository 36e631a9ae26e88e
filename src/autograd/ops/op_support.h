// Small helpers of the ops in this folder.
#pragma once
#include "src/autograd/ops.h"

namespace moba::ops {

inline void check_same(const char* op, const Variable& a, const Variable& b) {
  MOBA_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "{}: operands {} {} and {} {} must have the same shape and dtype", op,
             dtype_name(a.dtype()), to_string(a.shape()), dtype_name(b.dtype()), to_string(b.shape()));
}

inline void check_dtype(const char* op, const char* what, DType got, DType want) {
  MOBA_CHECK(got == want, "{}: {} is {}, must be {}", op, what, dtype_name(got), dtype_name(want));
}

// Type in which gradients of parameters and saved statistics are kept.
constexpr DType wide(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

inline Tensor empty_like(const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); }

// Where an element-wise gradient may be written: over `grad` itself if nobody else holds it.
inline Tensor reuse_or_empty(const Tensor& grad) { return grad.storage().use_count() == 1 ? grad : empty_like(grad); }

// Calls accumulate(buffer) with a wide buffer of the weight's shape and adds what it leaves there to the weight's gradient:
// the gradient itself for leaves, a temporary for inner variables of a narrower type.
template <class F>
void accumulate_wide(const Variable& weight, F&& accumulate) {
  if (weight.grad_dtype() == wide(weight.dtype())) return accumulate(weight.grad_buffer());
  Tensor buffer = Tensor::zeros(weight.shape(), wide(weight.dtype()), weight.slot()->device);
  accumulate(buffer);
  weight.add_grad(std::move(buffer));
}

}  // namespace moba::ops
