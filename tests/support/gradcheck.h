// The gradient checker: gradients of a function of fp64 tensors against central differences. Small problems compare the full
// Jacobian, larger ones random projections of it. One line per op:
//   EXPECT_TRUE(gradcheck([](auto& v) { return ops::multiply(v[0], v[1]); }, {random({3, 4}, 1), random({3, 4}, 2)}));
// The function must be smooth around the inputs; hold selections (top-k) fixed outside of it.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "src/autograd/rng.h"
#include "src/autograd/variable.h"
#include "tests/support/compare.h"

namespace moba::test {

using GradFunction = std::function<Variable(const std::vector<Variable>&)>;

struct GradCheckOptions {
  double step = 1e-5;             // error of a central difference: step^2 (curvature) and 1e-16/step (rounding)
  double tolerance = 1e-7;        // relative RMS
  int64_t full_jacobian = 20000;  // largest inputs x outputs for the full Jacobian
  int projections = 8;
};

inline Tensor random(Shape shape, uint64_t seed, double deviation = 1, DType dtype = DType::f64) {
  Tensor t = Tensor::empty(std::move(shape), dtype);
  fill_normal(t, 0, deviation, seed, hash_name("test"));
  return t;
}

inline double dot(const Tensor& a, const Tensor& b) {
  double total = 0;
  for (int64_t i = 0; i < a.numel(); ++i) total += a.data<double>()[i] * b.data<double>()[i];
  return total;
}

namespace gradcheck_detail {

struct Problem {
  const GradFunction& fn;
  const std::vector<Tensor>& inputs;

  Tensor value(const std::vector<Tensor>& at) const {
    const NoGrad no_grad;
    std::vector<Variable> v;
    for (const Tensor& t : at) v.emplace_back(t.clone(), false);
    return fn(v).value().clone();
  }

  // Gradients of <seed, fn(inputs)>; zeros where none arrived.
  std::vector<Tensor> gradients(const Tensor& seed) const {
    std::vector<Variable> v;
    for (const Tensor& t : inputs) v.emplace_back(t.clone(), true);
    backward(fn(v), seed);
    std::vector<Tensor> all;
    for (size_t i = 0; i < v.size(); ++i) all.push_back(v[i].has_grad() ? v[i].grad() : Tensor::zeros(inputs[i].shape(), DType::f64));
    return all;
  }

  // d fn / d (input `which` along `direction`), by central differences.
  Tensor difference(size_t which, const Tensor& direction, double step) const {
    Tensor at[2];
    for (int side = 0; side < 2; ++side) {
      std::vector<Tensor> moved = inputs;
      moved[which] = inputs[which].clone();
      for (int64_t i = 0; i < direction.numel(); ++i) moved[which].data<double>()[i] += (side ? -step : step) * direction.data<double>()[i];
      at[side] = value(moved);
    }
    for (int64_t i = 0; i < at[0].numel(); ++i) at[0].data<double>()[i] = (at[0].data<double>()[i] - at[1].data<double>()[i]) / (2 * step);
    return at[0];
  }
};

inline Tensor unit_vector(const Shape& shape, int64_t i) {
  Tensor t = Tensor::zeros(shape, DType::f64);
  t.data<double>()[i] = 1;
  return t;
}

}  // namespace gradcheck_detail

inline ::testing::AssertionResult gradcheck(const GradFunction& fn, const std::vector<Tensor>& inputs,
                                            const GradCheckOptions& options = {}) {
  using namespace gradcheck_detail;
  const Problem problem{fn, inputs};
  const Tensor y = problem.value(inputs);
  if (y.dtype() != DType::f64)
    return ::testing::AssertionFailure() << "gradcheck: the function returns " << dtype_name(y.dtype()) << ", not f64";
  const int64_t outputs = y.numel();
  std::vector<std::vector<double>> got(inputs.size()), want(inputs.size());
  int64_t total = 0;
  for (const Tensor& t : inputs) total += t.numel();

  if (total * outputs <= options.full_jacobian) {
    std::vector<std::vector<Tensor>> rows;
    for (int64_t o = 0; o < outputs; ++o) rows.push_back(problem.gradients(unit_vector(y.shape(), o)));
    for (size_t which = 0; which < inputs.size(); ++which)
      for (int64_t i = 0; i < inputs[which].numel(); ++i) {
        const Tensor column = problem.difference(which, unit_vector(inputs[which].shape(), i), options.step);
        for (int64_t o = 0; o < outputs; ++o) {
          got[which].push_back(rows[static_cast<size_t>(o)][which].data<double>()[i]);
          want[which].push_back(column.data<double>()[o]);
        }
      }
  } else {
    for (int p = 0; p < options.projections; ++p) {
      const Tensor seed = random(y.shape(), 1000 + static_cast<uint64_t>(p));
      const std::vector<Tensor> analytic = problem.gradients(seed.clone());
      for (size_t which = 0; which < inputs.size(); ++which) {
        const Tensor direction = random(inputs[which].shape(), 2000 + static_cast<uint64_t>(p) * 64 + which);
        got[which].push_back(dot(analytic[which], direction));
        want[which].push_back(dot(problem.difference(which, direction, options.step), seed));
      }
    }
  }
  for (size_t which = 0; which < inputs.size(); ++which)
    if (auto ok = close_rms("gradient of input " + std::to_string(which), got[which], want[which], options.tolerance); !ok) return ok;
  return ::testing::AssertionSuccess();
}

}  // namespace moba::test
