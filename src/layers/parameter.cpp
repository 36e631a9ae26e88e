#include "src/layers/parameter.h"

#include "src/autograd/rng.h"

namespace moba {
namespace {

DType master_dtype(DType model) { return model == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

Tensor ParameterStore::normal(const std::string& name, Shape shape, double stddev) const {
  Tensor master = Tensor::empty(std::move(shape), master_dtype(dtype_), device_);
  if (seed_) fill_normal(master, 0, stddev, *seed_, hash_name(name));
  return master;
}

Variable ParameterStore::add(const std::string& name, Tensor master, bool matrix, bool decay) {
  const Tensor copy = master.to(dtype_);  // the master itself in fp32 and f64 models
  Variable value(copy, true, name);
  parameters_.push_back({name, value, std::move(master), matrix, decay});
  return value;
}

Variable ParameterStore::matrix(const std::string& name, int64_t out, int64_t in, double stddev) {
  return add(name, normal(name, {out, in}, stddev), true, true);
}

Variable ParameterStore::head(const std::string& name, int64_t vocab, int64_t cols, double stddev) {
  return add(name, normal(name, {vocab, cols}, stddev), false, true);
}

Variable ParameterStore::embedding(const std::string& name, int64_t vocab, int64_t cols, double stddev) {
  return add(name, normal(name, {vocab, cols}, stddev), false, false);
}

Variable ParameterStore::norm(const std::string& name, int64_t cols) {
  return add(name, Tensor::full({cols}, 1, master_dtype(dtype_), device_), false, false);
}

Variable ParameterStore::key_conv(const std::string& name, int64_t channels, int64_t width) {
  return add(name, Tensor::zeros({channels, width}, master_dtype(dtype_), device_), false, false);
}

}  // namespace moba
