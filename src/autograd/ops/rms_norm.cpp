// RMSNorm alone and fused with the residual addition before it.
#include "kernels/rms_norm/rms_norm.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

void check(const char* op, const Variable& x, const Variable& weight) {
  MOBA_CHECK(!x.shape().empty() && weight.shape() == Shape{x.shape().back()} && weight.dtype() == x.dtype(),
             "{}: weight {} {} does not fit x {} {}", op, dtype_name(weight.dtype()), to_string(weight.shape()), dtype_name(x.dtype()),
             to_string(x.shape()));
}

struct Normed {
  Tensor y, rstd;
};

// With a residual, sum_out receives x + residual.
Normed forward(const Tensor& x, const Tensor* residual, const Tensor* sum_out, const Tensor& weight, double eps) {
  const int64_t cols = weight.numel(), rows = x.numel() / cols;
  Normed n{empty_like(x), Tensor::empty({rows}, wide(x.dtype()), x.device())};
  kernels::rms_norm_forward({.stream = x.stream(),
                             .dtype = x.dtype(),
                             .rows = rows,
                             .cols = cols,
                             .eps = eps,
                             .x = x.raw(),
                             .residual = residual ? residual->raw() : nullptr,
                             .weight = weight.raw(),
                             .sum_out = sum_out ? sum_out->raw() : nullptr,
                             .y = n.y.raw(),
                             .rstd = n.rstd.raw()});
  return n;
}

// The node of y = norm(x). If x already holds gradient from its later uses (for the residual stream it nearly always does),
// the kernel adds to it while it writes dx, instead of a pass of its own afterwards.
Variable record(const Variable& x, const Variable& weight, Normed normed) {
  return make_output(
      std::move(normed.y), "rms_norm", {x, weight},
      [x = x.edge(), weight = weight.edge(), xv = x.value(), wv = weight.value(), rstd = std::move(normed.rstd)](const Tensor& dy) {
        const int64_t cols = wv.numel();
        Tensor arrived;
        if (x.slot()->inner && x.has_grad()) arrived = std::move(x.grad()), x.zero_grad();
        const bool trains = weight.requires_grad();
        Tensor dx = empty_like(xv);
        const auto run = [&](const Tensor& dweight) {
          kernels::rms_norm_backward({.stream = dy.stream(),
                                      .dtype = xv.dtype(),
                                      .rows = xv.numel() / cols,
                                      .cols = cols,
                                      .x = xv.raw(),
                                      .weight = wv.raw(),
                                      .rstd = rstd.raw(),
                                      .dy = dy.raw(),
                                      .dsum = arrived.defined() ? arrived.raw() : nullptr,
                                      .dx = dx.raw(),
                                      .dweight = dweight.raw()});
        };
        if (trains)
          accumulate_wide(weight, run);
        else
          run(Tensor::zeros({cols}, wide(xv.dtype()), xv.device()));
        arrived = Tensor();
        if (x.requires_grad()) x.add_grad(std::move(dx));
      });
}

}  // namespace

Variable rms_norm(const Variable& x, const Variable& weight, double eps) {
  check("rms_norm", x, weight);
  return record(x, weight, forward(x.value(), nullptr, nullptr, weight.value(), eps));
}

// One kernel pass, two nodes: `sum` first, then `normed` on top of it. When the walk reaches `normed`, all other users of
// `sum` have delivered, so its gradient joins inside the kernel and `sum` only hands the result on to x and residual.
AddNorm add_rms_norm(const Variable& x, const Variable& residual, const Variable& weight, double eps) {
  check("add_rms_norm", x, weight);
  check_same("add_rms_norm", x, residual);
  Tensor sum_value = empty_like(x.value());
  Normed normed = forward(x.value(), &residual.value(), &sum_value, weight.value(), eps);
  AddNorm out;
  out.sum = make_output(std::move(sum_value), "add", {x, residual}, [x = x.edge(), residual = residual.edge()](const Tensor& grad) {
    if (x.requires_grad()) x.add_grad(grad);
    if (residual.requires_grad()) residual.add_grad(grad);
  });
  out.normed = record(out.sum, weight, std::move(normed));
  return out;
}

}  // namespace moba::ops
