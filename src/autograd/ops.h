// All differentiable operations. One file each under ops/, forward and gradient together. Shapes as in docs/architecture.md:
// T tokens, C model dim, H heads, Hk kv heads, D head dim, V vocabulary.
#pragma once
#include <optional>

#include "kernels/matmul/matmul.h"
#include "kernels/rope/rope.h"
#include "src/autograd/variable.h"

namespace moba::ops {

Variable add(const Variable& a, const Variable& b);       // same shape
Variable multiply(const Variable& a, const Variable& b);  // same shape
Variable scale(const Variable& x, double factor);
Variable cast(const Variable& x, DType dtype);
Variable reshape(const Variable& x, Shape shape);
Variable sum(const Variable& x);                        // [1], f64 accumulation
Variable matmul(const Variable& a, const Variable& b);  // [M,K] x [K,N]

// y [T, out] = x [T, in] W^T, W [out, in]. The gradient of W is accumulated straight into its fp32 buffer.
Variable linear(const Variable& x, const Variable& weight);

Variable embedding(const Variable& table, const Tensor& ids);              // table [V, C], ids i32 [T] -> [T, C]
Variable rms_norm(const Variable& x, const Variable& weight, double eps);  // over the last dimension; any leading shape

// y = rms_norm(x + residual); sum receives x + residual as a Variable of its own (the new residual stream).
struct AddNorm {
  Variable sum, normed;
};
AddNorm add_rms_norm(const Variable& x, const Variable& residual, const Variable& weight, double eps);

// x [T, H, D], positions i32 [T], inv_freq f64 [D/2]
Variable rope(const Variable& x, const Tensor& positions, const Tensor& inv_freq);
Variable swiglu(const Variable& gate, const Variable& up);                               // [T, F] each
Variable key_conv(const Variable& k, const Variable& weight, const Tensor& cu_seqlens);  // k [T, Hk*D], weight [Hk*D, W]

// Mean-free loss sum: scale * sum over counted targets of cross-entropy(x W^T, target), without holding [T, V] logits:
// processed in chunks of tokens; with gradients on, dx and dW are computed in the same pass (W's into its fp32 buffer).
// x [T, C], weight [V, C], targets i32 [T], -1 = not counted. Result f64 [1]: scale * sum of losses. token_losses (optional)
// receives f64 [T] nats per token.
Variable linear_cross_entropy(const Variable& x, const Variable& weight, const Tensor& targets, double scale,
                              Tensor* token_losses = nullptr);

}  // namespace moba::ops
