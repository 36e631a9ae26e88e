// The walk over the tape.
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "src/autograd/tape.h"

namespace moba {
namespace {

using Slot = Variable::Slot;
using SlotPtr = std::shared_ptr<Slot>;

// Number of recorded uses of each leaf with a hook that can be reached from root.
std::unordered_map<Slot*, int64_t> count_hooked_uses(const SlotPtr& root) {
  std::unordered_map<Slot*, int64_t> uses;
  std::unordered_set<Node*> seen;
  std::vector<Slot*> open{root.get()};
  while (!open.empty()) {
    Slot* slot = open.back();
    open.pop_back();
    if (slot->grad_hook) ++uses[slot];
    if (!slot->node || !seen.insert(slot->node.get()).second) continue;
    for (const Variable& input : slot->node->inputs)
      if (input.requires_grad()) open.push_back(input.slot().get());
  }
  return uses;
}

class Walk {
 public:
  Walk(uint64_t floor, std::unordered_map<Slot*, int64_t> hooked_uses) : floor_(floor), hooked_uses_(std::move(hooked_uses)) {}

  void run(const SlotPtr& root) {
    arrive(root);
    while (!queue_.empty()) {
      const SlotPtr slot = queue_.top();
      queue_.pop();
      visit(*slot);
    }
  }

 private:
  // One use of the slot has delivered its gradient.
  void arrive(const SlotPtr& slot) {
    if (const auto uses = hooked_uses_.find(slot.get()); uses != hooked_uses_.end() && --uses->second == 0) slot->grad_hook();
    if (slot->node && slot->node->sequence >= floor_ && queued_.insert(slot->node.get()).second) queue_.push(slot);
  }

  // All users of the slot ran before, since they were created after it: its gradient is complete.
  void visit(Slot& slot) {
    Node& node = *slot.node;
    const Tensor grad = std::move(slot.grad);
    slot.grad = Tensor();
    if (grad.defined()) {
      MOBA_CHECK(node.backward, "backward through {} a second time: its saved tensors are gone; run the forward pass again", node.name);
      node.backward(grad);
    }
    node.backward = nullptr;
    const std::vector<Variable> inputs = std::move(node.inputs);
    node.inputs.clear();
    for (const Variable& input : inputs)
      if (input.requires_grad()) arrive(input.slot());
  }

  struct Earlier {
    bool operator()(const SlotPtr& a, const SlotPtr& b) const { return a->node->sequence < b->node->sequence; }
  };
  const uint64_t floor_;
  std::unordered_map<Slot*, int64_t> hooked_uses_;
  std::unordered_set<Node*> queued_;
  std::priority_queue<SlotPtr, std::vector<SlotPtr>, Earlier> queue_;
};

}  // namespace

namespace detail {

void run_backward(const Variable& root, Tensor seed, uint64_t floor) {
  const NoGrad no_grad;
  const SlotPtr& slot = root.slot();
  root.add_grad(std::move(seed));
  Walk(floor, floor == 0 ? count_hooked_uses(slot) : std::unordered_map<Slot*, int64_t>{}).run(slot);
}

}  // namespace detail

void backward(const Variable& root, Tensor seed) {
  MOBA_CHECK(root.requires_grad(), "backward: nothing that leads here requires a gradient");
  if (!seed.defined()) {
    MOBA_CHECK(numel(root.shape()) == 1, "backward: a result of shape {} needs a seed gradient", to_string(root.shape()));
    seed = Tensor::full(root.shape(), 1, root.grad_dtype(), root.slot()->device);
  }
  MOBA_CHECK(seed.numel() == numel(root.shape()), "backward: seed of shape {} for a result of shape {}", to_string(seed.shape()),
             to_string(root.shape()));
  detail::run_backward(root, std::move(seed), 0);
}

}  // namespace moba
