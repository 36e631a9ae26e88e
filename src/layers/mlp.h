// SwiGLU feed-forward: down(silu(gate(x)) * up(x)).
#pragma once
#include "src/layers/config.h"
#include "src/layers/linear.h"

namespace moba {

class Mlp {
 public:
  // residual_stddev: of down_proj, which writes into the residual stream.
  Mlp(ParameterStore& store, const std::string& prefix, const TransformerConfig& c, double residual_stddev)
      : gate_(store, prefix + "gate_proj.weight", c.intermediate_size, c.hidden_size, c.initializer_range),
        up_(store, prefix + "up_proj.weight", c.intermediate_size, c.hidden_size, c.initializer_range),
        down_(store, prefix + "down_proj.weight", c.hidden_size, c.intermediate_size, residual_stddev) {}

  Variable operator()(const Variable& x) { return down_(ops::swiglu(gate_(x), up_(x))); }  // [T, C] -> [T, C]

 private:
  Linear gate_, up_, down_;
};

}  // namespace moba
