// RMSNorm over the last dimension, with one weight per column.
#pragma once
#include "src/autograd/ops.h"
#include "src/layers/parameter.h"

namespace moba {

class RmsNorm {
 public:
  RmsNorm(ParameterStore& store, const std::string& name, int64_t cols, double eps) : weight_(store.norm(name, cols)), eps_(eps) {}

  Variable operator()(const Variable& x) const { return ops::rms_norm(x, weight_, eps_); }
  // Normalises x + residual and returns the sum too: the new residual stream.
  ops::AddNorm add(const Variable& x, const Variable& residual) const { return ops::add_rms_norm(x, residual, weight_, eps_); }

 private:
  Variable weight_;  // [cols]
  double eps_;
};

}  // namespace moba
