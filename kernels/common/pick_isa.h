// Each vectorised operation is a table of loops compiled once per instruction set (files *_sse, *_avx2, *_avx512.cpp define
// MOBA_ISA and include <op>_loops.h). This chooses the table of the active variant.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

// True where the plain loops must run: forced by MOBA_KERNEL=reference, or fp64 (gradient checks).
inline bool use_reference(DType dtype) { return dtype == DType::f64 || active_isa() == Isa::reference; }

inline void require_cpu(const char* op, const Stream& stream) {
  if (stream.device != DeviceType::cpu) throw_no_device_kernel(op, stream);
}

template <class Table>
const Table& pick_isa(const Table& sse, const Table& avx2, const Table& avx512) {
  switch (active_isa()) {
    case Isa::avx512:
    case Isa::avx512_bf16: return avx512;
    case Isa::avx2: return avx2;
    default: return sse;
  }
}

}  // namespace moba::kernels

// Declares the three tables of an operation: MOBA_DECLARE_LOOPS(SwigluLoops, swiglu_loops);
#define MOBA_DECLARE_LOOPS(Type, name) \
  namespace moba::kernels {            \
  namespace sse {                      \
  extern const Type name;              \
  }                                    \
  namespace avx2 {                     \
  extern const Type name;              \
  }                                    \
  namespace avx512 {                   \
  extern const Type name;              \
  }                                    \
  }                                    \
  static_assert(true)
