#include "kernels/key_conv/key_conv.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable key_conv(const Variable& k, const Variable& weight, const Tensor& cu_seqlens) {
  const Tensor &kv = k.value(), &wv = weight.value();
  MOBA_CHECK(kv.dim() == 2 && wv.dim() == 2 && wv.size(0) == kv.size(1) && wv.dtype() == kv.dtype(),
             "key_conv: k {} {} does not fit weight {} {}", dtype_name(kv.dtype()), to_string(kv.shape()), dtype_name(wv.dtype()),
             to_string(wv.shape()));
  check_dtype("key_conv", "cu_seqlens", cu_seqlens.dtype(), DType::i32);
  Tensor y = empty_like(kv);
  const auto arguments = [=](void* out) {
    return kernels::KeyConvArgs{.stream = kv.stream(),
                                .dtype = kv.dtype(),
                                .batch = cu_seqlens.numel() - 1,
                                .tokens = kv.size(0),
                                .channels = kv.size(1),
                                .width = wv.size(1),
                                .cu_seqlens = cu_seqlens.data<int32_t>(),
                                .k = kv.raw(),
                                .weight = wv.raw(),
                                .out = out};
  };
  kernels::key_conv_forward(arguments(y.raw()));
  return make_output(std::move(y), "key_conv", {k, weight}, [=, k = k.edge(), weight = weight.edge()](const Tensor& grad) {
    Tensor dk = empty_like(kv);
    const auto run = [&](const Tensor& dweight) {
      kernels::key_conv_backward({.forward = arguments(nullptr), .dout = grad.raw(), .dk = dk.raw(), .dweight = dweight.raw()});
    };
    if (weight.requires_grad())
      accumulate_wide(weight, run);
    else
      run(Tensor::zeros(wv.shape(), wide(wv.dtype()), wv.device()));
    if (k.requires_grad()) k.add_grad(std::move(dk));
  });
}

}  // namespace moba::ops
