// Optimizers over fp32 masters. State tensors are named for checkpoints: "<parameter>.<slot>".
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/autograd/variable.h"

namespace moba {

// What an optimizer needs of one parameter.
struct OptimizerParameter {
  std::string name;
  Variable value;  // compute copy; its grad() is read
  Tensor master;   // fp32
  bool matrix = false;
  bool decay = false;
};

struct OptimizerConfig {
  enum class Name { adamw, muon } name = Name::adamw;
  double lr = 6e-4;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update with learning rate lr; grads are multiplied by grad_scale first. step is 1-based. Writes masters and compute copies.
  virtual void step(int64_t step, double lr, double grad_scale) = 0;
  struct State {
    std::string name;
    Tensor value;
  };
  virtual std::vector<State> state() const = 0;  // to save, and to load into
};

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, std::vector<OptimizerParameter> parameters);

// Sum of the squares of each parameter's gradient (fp64), 0 where there is none.
std::vector<double> grad_squares(const std::vector<OptimizerParameter>& parameters);
// L2 norm over all parameters, from their sums of squares added in order; NaN or Inf if any element is.
double global_norm(const std::vector<double>& squares);
inline double global_grad_norm(const std::vector<OptimizerParameter>& parameters) { return global_norm(grad_squares(parameters)); }
// Factor to apply so that the norm is at most max_norm (1 if already; max_norm 0 = no clipping). PyTorch: max_norm / (norm + 1e-6).
double clip_factor(double norm, double max_norm);

// Learning rate at step s = 1 .. total (interfaces: warm-up lr*s/warmup; then cosine, wsd, linear, constant).
struct LrScheduleConfig {
  enum class Name { cosine, wsd, linear, constant } name = Name::cosine;
  int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;
  double decay_ratio = 0.2;  // wsd: last share of the run
};
double learning_rate(const LrScheduleConfig& config, double lr, int64_t step, int64_t total_steps);

}  // namespace moba
