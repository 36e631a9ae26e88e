#include <algorithm>

#include "src/autograd/tape.h"

namespace moba {
namespace {

// A variable that stands for `original` inside a recomputation: same value, gradient kept in the same way, no history.
Variable detached(const Variable& original) {
  Variable copy(original.value(), original.requires_grad(), original.name());
  copy.slot()->inner = original.slot()->inner;
  return copy;
}

}  // namespace

Variable checkpoint(const std::function<Variable(const std::vector<Variable>&)>& fn, const std::vector<Variable>& inputs) {
  if (!grad_enabled()) return fn(inputs);
  Tensor value;
  std::vector<Variable> read;
  {
    const NoGrad no_grad;
    const detail::InputCollector collector;
    value = fn(inputs).value();
    read = collector.found();
  }
  // Besides the inputs fn may have read others that it captured; they are inputs of the node too.
  return make_output(std::move(value), "checkpoint", std::move(read), [fn, inputs](const Tensor& grad) {
    std::vector<Variable> copies;
    for (const Variable& input : inputs) copies.push_back(detached(input));
    const uint64_t first = detail::next_sequence();
    Variable output;
    {
      const EnableGrad enable;
      output = fn(copies);
    }
    // What arrived so far goes in first, so that sums have the order, and the bits, of a pass without checkpoints.
    for (size_t i = 0; i < inputs.size(); ++i) copies[i].grad() = std::move(inputs[i].grad());
    for (const Variable& input : inputs) input.zero_grad();
    if (output.requires_grad()) detail::run_backward(output, grad, first);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (copies[i].has_grad()) inputs[i].add_grad(std::move(copies[i].grad()));
  });
}

}  // namespace moba
