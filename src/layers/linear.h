// y [T, out] = x [T, in] W^T without bias.
#pragma once
#include "src/autograd/ops.h"
#include "src/layers/parameter.h"

namespace moba {

class Linear {
 public:
  Linear(ParameterStore& store, const std::string& name, int64_t out, int64_t in, double stddev)
      : weight_(store.matrix(name, out, in, stddev)) {}

  Variable operator()(const Variable& x) const { return ops::linear(x, weight_); }

 private:
  Variable weight_;  // [out, in]
};

}  // namespace moba
