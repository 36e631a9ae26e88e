#include "kernels/embedding/embedding.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable embedding(const Variable& table, const Tensor& ids) {
  const Tensor& tv = table.value();
  MOBA_CHECK(tv.dim() == 2, "embedding: table of shape {}, must be [V, C]", to_string(tv.shape()));
  check_dtype("embedding", "ids", ids.dtype(), DType::i32);
  const int64_t tokens = ids.numel(), vocab = tv.size(0), cols = tv.size(1);
  Tensor y = Tensor::empty({tokens, cols}, tv.dtype(), tv.device());
  kernels::embedding_forward(y.stream(), y.dtype(), tokens, vocab, cols, tv.raw(), ids.data<int32_t>(), y.raw());
  return make_output(std::move(y), "embedding", {table}, [=, table = table.edge()](const Tensor& grad) {
    accumulate_wide(table, [&](const Tensor& dtable) {
      kernels::embedding_backward(grad.stream(), grad.dtype(), tokens, vocab, cols, grad.raw(), ids.data<int32_t>(), dtable.raw());
    });
  });
}

}  // namespace moba::ops
