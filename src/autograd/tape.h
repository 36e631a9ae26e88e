// What variable.cpp, backward.cpp and checkpoint.cpp share. Not for ops.
#pragma once
#include "src/autograd/variable.h"

namespace moba::detail {

// Sequence number that the next recorded node gets.
uint64_t next_sequence();

// Collects, while alive, the variables requiring a gradient that ops of this thread read. The innermost collector gets them.
class InputCollector {
 public:
  InputCollector();
  ~InputCollector();
  InputCollector(const InputCollector&) = delete;
  const std::vector<Variable>& found() const { return found_; }
  void add(const Variable& input);

 private:
  InputCollector* before_;
  std::vector<Variable> found_;  // edges, each slot once, in order of first use
};

// A backward pass from `root` that stays among nodes of sequence >= floor. Gradients that leave the range stop in their slots.
// Hooks fire only in a whole pass (floor 0).
void run_backward(const Variable& root, Tensor seed, uint64_t floor);

}  // namespace moba::detail
