// Embedding look-up and its gradient. dtable is accumulated in fp32 (f64 for f64) in token order per row, so bits do not depend on threads.
#pragma once
#include "kernels/common/dispatch.h"

namespace moba::kernels {

// table [V, C] dtype, ids [T] in [0, V) (Error otherwise, naming the position), y [T, C] dtype
void embedding_forward(const Stream& stream, DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* table,
                       const int32_t* ids, void* y);
// dy [T, C] dtype, dtable [V, C] f32 (f64 for f64), accumulated into
void embedding_backward(const Stream& stream, DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* dy, const int32_t* ids,
                        void* dtable);
void embedding_backward_reference(DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* dy, const int32_t* ids,
                                  void* dtable);

}  // namespace moba::kernels
