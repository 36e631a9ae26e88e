#include "src/autograd/variable.h"

#include <algorithm>
#include <atomic>

#include "kernels/elementwise/elementwise.h"
#include "src/autograd/tape.h"

namespace moba {
namespace {

thread_local bool grad_mode = true;
thread_local detail::InputCollector* collector = nullptr;
std::atomic<uint64_t> sequence_counter{1};

}  // namespace

Variable::Variable(Tensor value, bool requires_grad, std::string name) : slot_(std::make_shared<Slot>()) {
  slot_->requires_grad = requires_grad;
  slot_->name = std::move(name);
  value_ = std::make_shared<Tensor>();
  set_value(std::move(value));
}

void Variable::set_value(Tensor value) {
  MOBA_ASSERT(value.defined());
  slot_->shape = value.shape();
  slot_->dtype = value.dtype();
  slot_->device = value.device();
  *value_ = std::move(value);
}

Variable Variable::edge() const {
  Variable v;
  v.slot_ = slot_;
  return v;
}

DType Variable::grad_dtype() const { return slot_->inner || slot_->dtype == DType::f64 ? slot_->dtype : DType::f32; }

void Variable::add_grad(Tensor g) const {
  MOBA_ASSERT(g.numel() == numel(slot_->shape));
  Tensor& grad = slot_->grad;
  if (!grad.defined()) {
    g = g.to(grad_dtype());
    const bool shared = g.storage().use_count() > 1;
    grad = (shared && !slot_->inner ? g.clone() : std::move(g)).reshape(slot_->shape);
  } else if (grad.storage().use_count() == 1) {
    kernels::accumulate(grad.stream(), grad.dtype(), g.dtype(), grad.numel(), g.raw(), grad.raw());
  } else {
    const Tensor added = g.to(grad.dtype());
    Tensor sum = Tensor::empty(slot_->shape, grad.dtype(), grad.device());
    kernels::add(grad.stream(), grad.dtype(), grad.numel(), grad.raw(), added.raw(), sum.raw());
    grad = std::move(sum);
  }
}

Tensor& Variable::grad_buffer() const {
  Tensor& grad = slot_->grad;
  if (!grad.defined())
    grad = Tensor::zeros(slot_->shape, grad_dtype(), slot_->device);
  else if (grad.storage().use_count() > 1)
    grad = grad.clone();
  return grad;
}

void Variable::zero_grad() const { slot_->grad = Tensor(); }

bool grad_enabled() { return grad_mode; }
NoGrad::NoGrad() : before_(grad_mode) { grad_mode = false; }
NoGrad::~NoGrad() { grad_mode = before_; }
EnableGrad::EnableGrad() : before_(grad_mode) { grad_mode = true; }
EnableGrad::~EnableGrad() { grad_mode = before_; }

bool records(std::initializer_list<Variable> inputs) {
  return grad_mode && std::any_of(inputs.begin(), inputs.end(), [](const Variable& v) { return v.requires_grad(); });
}

Variable make_output(Tensor value, const char* name, std::vector<Variable> inputs, std::function<void(const Tensor& grad)> backward) {
  bool needed = false;
  for (const Variable& input : inputs) {
    if (!input.requires_grad()) continue;
    needed = true;
    if (collector) collector->add(input);
  }
  Variable output(std::move(value), needed && grad_mode);
  output.slot()->inner = true;
  if (!output.requires_grad()) return output;
  for (Variable& input : inputs) input = input.edge();
  output.slot()->node = std::make_shared<Node>(Node{name, sequence_counter++, std::move(inputs), std::move(backward)});
  return output;
}

namespace detail {

uint64_t next_sequence() { return sequence_counter; }

InputCollector::InputCollector() : before_(collector) { collector = this; }
InputCollector::~InputCollector() { collector = before_; }

void InputCollector::add(const Variable& input) {
  const bool known = std::any_of(found_.begin(), found_.end(), [&](const Variable& v) { return v.slot() == input.slot(); });
  if (!known) found_.push_back(input.edge());
}

}  // namespace detail
}  // namespace moba
