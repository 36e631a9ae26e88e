#include <cmath>

#include "kernels/grad_norm/grad_norm.h"
#include "src/optim/optimizer.h"

namespace moba {

double global_grad_norm(const std::vector<OptimizerParameter>& parameters) {
  double squares = 0;
  for (const auto& p : parameters) {
    if (!p.value.has_grad()) continue;
    const Tensor& g = p.value.grad();
    squares += kernels::sum_of_squares(g.stream(), g.dtype(), g.numel(), g.raw());
  }
  return std::sqrt(squares);
}

double clip_factor(double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return 1;
  return max_norm / (norm + 1e-6);
}

}  // namespace moba
