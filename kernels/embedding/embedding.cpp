#include "kernels/embedding/embedding.h"

#include <algorithm>
#include <cstring>

#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/elementwise/elementwise_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kTokensPerPiece = 64;
// Backward is cut along columns: each piece walks all tokens in order, so no two threads touch the same element and no sort
// is needed. 64 floats are four cache lines, enough to use a line once and to leave pieces for many threads.
constexpr int64_t kColumnsPerPiece = 64;

void validate(const Stream& stream, DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const int32_t* ids) {
  require_cpu("embedding", stream);
  MOBA_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64,
             "embedding: dtype {} is not supported; use f32, bf16 or f64", dtype_name(dtype));
  MOBA_CHECK(tokens >= 0 && vocab >= 0 && cols >= 0, "embedding: sizes must be >= 0, got tokens {}, vocab {}, cols {}", tokens, vocab,
             cols);
  for (int64_t t = 0; t < tokens; ++t)
    MOBA_CHECK(ids[t] >= 0 && ids[t] < vocab, "embedding: token id {} at position {} is outside [0, {})", ids[t], t, vocab);
}

template <class T, class Loop>
void add_rows(int64_t tokens, int64_t cols, const T* dy, const int32_t* ids, float* dtable, Loop loop) {
  parallel_for(cols, kColumnsPerPiece, [&](int64_t b, int64_t e) {
    for (int64_t t = 0; t < tokens; ++t) loop(e - b, dy + t * cols + b, dtable + ids[t] * cols + b);
  });
}

}  // namespace

void embedding_forward(const Stream& stream, DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* table,
                       const int32_t* ids, void* y) {
  validate(stream, dtype, tokens, vocab, cols, ids);
  const ProfileScope profile("embedding forward", {.bytes = 2 * bytes_of(tokens * cols, dtype)});
  const int64_t row_bytes = cols * static_cast<int64_t>(dtype_size(dtype));
  parallel_for(tokens, kTokensPerPiece, [&](int64_t b, int64_t e) {
    for (int64_t t = b; t < e; ++t)
      std::memcpy(static_cast<char*>(y) + t * row_bytes, static_cast<const char*>(table) + ids[t] * row_bytes,
                  static_cast<size_t>(row_bytes));
  });
}

void embedding_backward(const Stream& stream, DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* dy, const int32_t* ids,
                        void* dtable) {
  validate(stream, dtype, tokens, vocab, cols, ids);
  const ProfileScope profile("embedding backward", {.bytes = bytes_of(tokens * cols, dtype) + 2 * bytes_of(tokens * cols, DType::f32)});
  if (use_reference(dtype)) return embedding_backward_reference(dtype, tokens, vocab, cols, dy, ids, dtable);
  auto* sums = static_cast<float*>(dtable);
  if (dtype == DType::f32) return add_rows(tokens, cols, static_cast<const float*>(dy), ids, sums, elementwise().accumulate_f32_f32);
  add_rows(tokens, cols, static_cast<const bf16*>(dy), ids, sums, elementwise().accumulate_f32_bf16);
}

void embedding_backward_reference(DType dtype, int64_t tokens, int64_t vocab, int64_t cols, const void* dy, const int32_t* ids,
                                  void* dtable) {
  validate({}, dtype, tokens, vocab, cols, ids);
  visit_float("embedding", dtype, [&]<class T>(T) {
    using Sum = Accumulator<T>;
    for (int64_t t = 0; t < tokens; ++t) {
      Sum* row = static_cast<Sum*>(dtable) + ids[t] * cols;
      for (int64_t c = 0; c < cols; ++c) row[c] += static_cast<Sum>(widen(static_cast<const T*>(dy)[t * cols + c]));
    }
  });
}

}  // namespace moba::kernels
