// Trained tensors: what they are called, how they start, which optimizer rules apply.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "src/autograd/variable.h"

namespace moba {

// One trained tensor. `value` is the compute copy (model dtype); `master` the fp32 weights the optimizer owns. For fp32 models
// both share storage. Gradients live in value.grad(), fp32.
struct Parameter {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  Variable value;
  Tensor master;        // fp32 (f64 in f64 models)
  bool matrix = false;  // 2-d weight inside a block: Muon's share
  bool decay = false;   // weight decay applies (matrices and head, not norms, embeddings, key convolution)
};

// Makes parameters while a model is built. A value depends on (seed, name, index) only, so neither the order of layers nor
// the attention of a model changes its start: pairs of runs share their initial weights. Without a seed nothing is drawn: for
// weights that a checkpoint fills.
class ParameterStore {
 public:
  ParameterStore(DType dtype, std::optional<uint64_t> seed, Device device) : dtype_(dtype), seed_(seed), device_(device) {}

  Variable matrix(const std::string& name, int64_t out, int64_t in, double stddev);  // inside a block
  Variable head(const std::string& name, int64_t vocab, int64_t cols, double stddev);
  Variable embedding(const std::string& name, int64_t vocab, int64_t cols, double stddev);
  Variable norm(const std::string& name, int64_t cols);                         // ones
  Variable key_conv(const std::string& name, int64_t channels, int64_t width);  // zeros

  DType dtype() const { return dtype_; }
  std::vector<Parameter> take() { return std::move(parameters_); }

 private:
  Variable add(const std::string& name, Tensor master, bool matrix, bool decay);
  Tensor normal(const std::string& name, Shape shape, double stddev) const;

  DType dtype_;
  std::optional<uint64_t> seed_;
  Device device_;
  std::vector<Parameter> parameters_;
};

}  // namespace moba
