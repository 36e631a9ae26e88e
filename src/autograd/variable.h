// The tape. A Variable is a tensor with a gradient and, if an op made it, the node that made it. Eager: ops run at once and
// record a node when gradients are on and an input needs one. backward() walks nodes in reverse order of creation and frees
// each node's saved tensors and the gradient of its output as soon as they are used.
#pragma once
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "src/autograd/tensor.h"

namespace moba {

class Variable;

struct Node {
  const char* name = "";
  uint64_t sequence = 0;         // creation order; backward runs in descending order
  std::vector<Variable> inputs;  // edges: without their values
  // Receives the gradient of the output; calls add_grad on inputs that require one. Dropped after it ran.
  std::function<void(const Tensor& grad)> backward;
};

// A handle of two parts: the value, and the slot its gradient arrives in. edge() is a handle of the slot alone: what a node
// holds of inputs whose values its gradient does not need, so that those values can be freed.
class Variable {
 public:
  Variable() = default;
  explicit Variable(Tensor value, bool requires_grad = false, std::string name = {});

  bool defined() const { return slot_ != nullptr; }
  const Tensor& value() const { return *value_; }
  void set_value(Tensor value);
  const Shape& shape() const { return slot_->shape; }
  DType dtype() const { return slot_->dtype; }
  bool requires_grad() const { return slot_ && slot_->requires_grad; }
  const std::string& name() const { return slot_->name; }
  Variable edge() const;

  // Leaves accumulate in fp32 (f64 for f64 values), whatever the value's dtype; inner variables use the value's dtype.
  DType grad_dtype() const;
  bool has_grad() const { return slot_->grad.defined(); }
  Tensor& grad() const { return slot_->grad; }
  bool is_leaf() const { return slot_->node == nullptr; }
  // Adds g (any float dtype, any shape of as many elements) to the gradient. The first g is taken over when dtypes match and it
  // is not shared; inner variables also take a shared one and copy it only when a second gradient arrives.
  void add_grad(Tensor g) const;
  // The gradient buffer to accumulate into directly (zeros on first use): for kernels with beta = 1.
  Tensor& grad_buffer() const;
  void zero_grad() const;  // drops the gradient
  // Called after the leaf's last gradient of a backward pass arrived (bucketed reduction).
  void set_grad_hook(std::function<void()> hook) const { slot_->grad_hook = std::move(hook); }

  struct Slot {
    Tensor grad;
    Shape shape;
    DType dtype = DType::f32;
    Device device;
    bool requires_grad = false;
    bool inner = false;  // made by an op (or stands for such a one): gradient in the value's dtype
    std::string name;
    std::shared_ptr<Node> node;
    std::function<void()> grad_hook;
  };
  const std::shared_ptr<Slot>& slot() const { return slot_; }

 private:
  std::shared_ptr<Tensor> value_;
  std::shared_ptr<Slot> slot_;
};

// Thread-local gradient mode.
bool grad_enabled();
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  bool before_;
};
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;

 private:
  bool before_;
};

// True when an op on these inputs will be recorded: then, and only then, it need save anything.
bool records(std::initializer_list<Variable> inputs);

// Makes the output of an op: records a node with `backward` if gradients are on and an input requires one. Every op ends here,
// with all its differentiable inputs, recorded or not: checkpoint() learns from it which parameters a block reads.
Variable make_output(Tensor value, const char* name, std::vector<Variable> inputs, std::function<void(const Tensor& grad)> backward);

// Back-propagates from `root` with gradient `seed` (ones if undefined; root must then have one element).
void backward(const Variable& root, Tensor seed = {});

// Activation checkpointing: runs fn without a tape and saves only its inputs; backward runs fn again with a tape. fn must be
// deterministic and may keep what it wants to reuse (a MoBA selection) in state of its own. Variables that fn captures
// (parameters) get their gradients too.
Variable checkpoint(const std::function<Variable(const std::vector<Variable>&)>& fn, const std::vector<Variable>& inputs);

}  // namespace moba
