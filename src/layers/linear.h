// y [T, out] = x [T, in] W^T without bias. The packed form of W is kept until W's storage version moves.
#pragma once
#include "src/autograd/ops.h"
#include "src/layers/parameter.h"

namespace moba {

class Linear {
 public:
  Linear(ParameterStore& store, const std::string& name, int64_t out, int64_t in, double stddev)
      : weight_(store.matrix(name, out, in, stddev)) {}

  Variable operator()(const Variable& x) {
    const bool packable = weight_.dtype() != DType::f64;
    return packable ? ops::linear(x, weight_, &pack_, &packed_version_) : ops::linear(x, weight_);
  }

 private:
  Variable weight_;  // [out, in]
  kernels::PackedWeight pack_;
  uint64_t packed_version_ = ~uint64_t{0};
};

}  // namespace moba
