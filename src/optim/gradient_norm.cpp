#include <cmath>

#include "kernels/grad_norm/grad_norm.h"
#include "src/optim/optimizer.h"

namespace moba {

std::vector<double> grad_squares(const std::vector<OptimizerParameter>& parameters) {
  std::vector<double> squares;
  for (const auto& p : parameters) {
    double sum = 0;
    if (p.value.has_grad()) {
      const Tensor& g = p.value.grad();
      sum = kernels::sum_of_squares(g.stream(), g.dtype(), g.numel(), g.raw());
    }
    squares.push_back(sum);
  }
  return squares;
}

double global_norm(const std::vector<double>& squares) {
  double sum = 0;
  for (double s : squares) sum += s;
  return std::sqrt(sum);
}

double clip_factor(double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return 1;
  return max_norm / (norm + 1e-6);
}

}  // namespace moba
