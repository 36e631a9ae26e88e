#include "src/distributed/gradient_sum.h"

#include <algorithm>
#include <chrono>

#include "kernels/elementwise/elementwise.h"

namespace moba {
namespace {

void add(const Tensor& into, const Tensor& from) {
  kernels::accumulate(into.stream(), into.dtype(), from.dtype(), into.numel(), from.raw(), into.raw());
}

// Members start at 64 bytes, as tensors of their own would: vector loops then take the same path.
int64_t aligned(int64_t elements) { return (elements + 15) / 16 * 16; }

int64_t automatic_bucket_bytes(const std::vector<Variable>& parameters) {
  constexpr int64_t kLeast = int64_t{256} << 10, kMost = int64_t{32} << 20, kBuckets = 8;
  int64_t bytes = 0;
  for (const Variable& p : parameters) bytes += numel(p.shape()) * static_cast<int64_t>(dtype_size(p.grad_dtype()));
  return std::clamp(bytes / kBuckets, kLeast, kMost);
}

bool is_power_of_two(int64_t n) { return n >= 1 && (n & (n - 1)) == 0; }

}  // namespace

GradientSum::GradientSum(Communicator& ranks, std::vector<Variable> parameters, std::vector<int> owners, int64_t lanes_here,
                         int64_t bucket_bytes)
    : ranks_(ranks), parameters_(std::move(parameters)), lanes_here_(lanes_here), ready_(parameters_.size(), false) {
  MOBA_ASSERT(is_power_of_two(lanes_here));
  MOBA_ASSERT(owners.empty() || owners.size() == parameters_.size());
  if (ranks_.size() > 1) make_buckets(owners, bucket_bytes > 0 ? bucket_bytes : automatic_bucket_bytes(parameters_));
}

GradientSum::~GradientSum() {
  for (const Variable& p : parameters_) p.set_grad_hook({});
}

void GradientSum::make_buckets(const std::vector<int>& owners, int64_t bucket_bytes) {
  place_.resize(parameters_.size());
  std::vector<std::pair<int, size_t>> open;  // of each owner: its bucket with room
  for (size_t i = parameters_.size(); i-- > 0;) {
    const int owner = owners.empty() ? -1 : owners[i];
    const DType dtype = parameters_[i].grad_dtype();
    auto slot = std::ranges::find(open, owner, &std::pair<int, size_t>::first);
    const bool full = slot != open.end() && (buckets_[slot->second].dtype != dtype ||
                                             buckets_[slot->second].elements * static_cast<int64_t>(dtype_size(dtype)) >= bucket_bytes);
    if (slot == open.end() || full) {
      buckets_.push_back({});
      buckets_.back().owner = owner;
      buckets_.back().dtype = dtype;
      if (slot == open.end()) slot = open.insert(open.end(), {owner, 0});
      slot->second = buckets_.size() - 1;
    }
    Bucket& bucket = buckets_[slot->second];
    const int64_t n = numel(parameters_[i].shape());
    place_[i] = {slot->second, bucket.members.size()};
    bucket.members.push_back({i, bucket.elements, bucket.elements + n});
    bucket.elements = aligned(bucket.elements + n);
  }
  // Sent off in the order in which backward fills them: by their last member, the one with the lowest number.
  std::vector<size_t> order(buckets_.size());
  for (size_t b = 0; b < order.size(); ++b) order[b] = b;
  std::ranges::sort(order, [&](size_t a, size_t b) { return buckets_[a].members.back().parameter > buckets_[b].members.back().parameter; });
  std::vector<Bucket> sorted;
  for (size_t b : order) {
    for (const Member& m : buckets_[b].members) place_[m.parameter].first = sorted.size();
    sorted.push_back(std::move(buckets_[b]));
  }
  buckets_ = std::move(sorted);
}

void GradientSum::begin_last_pass() {
  MOBA_ASSERT(lanes_done_ == lanes_here_ - 1);
  last_pass_ = true;
  std::fill(ready_.begin(), ready_.end(), false);
  next_bucket_ = 0;
  for (Bucket& bucket : buckets_) bucket.missing = bucket.members.size();
  if (ranks_.size() == 1 && pending_.empty()) return;
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].set_grad_hook([this, i] { on_ready(i); });
}

// The newest subtree is the smallest, so adding from the newest to the oldest climbs the tree.
void GradientSum::merge_pending(size_t parameter) {
  Tensor& grad = parameters_[parameter].grad();
  for (auto subtree = pending_.rbegin(); subtree != pending_.rend(); ++subtree) {
    Tensor& other = subtree->grads[parameter];
    if (!other.defined()) continue;
    if (grad.defined())
      add(grad, other);
    else
      grad = other;
    other = Tensor();
  }
}

void GradientSum::on_ready(size_t parameter) {
  ready_[parameter] = true;
  merge_pending(parameter);
  if (ranks_.size() == 1) return;
  const Variable& p = parameters_[parameter];
  Bucket& bucket = buckets_[place_[parameter].first];
  const Member& member = bucket.members[place_[parameter].second];
  if (!bucket.data.defined()) bucket.data = Tensor::empty({bucket.elements}, bucket.dtype, p.slot()->device);
  const Tensor room = bucket.data.rows(member.begin, member.end);
  if (p.has_grad())
    room.copy_from(p.grad());
  else
    room.fill(0);
  p.zero_grad();
  --bucket.missing;
  start_full_buckets();
}

void GradientSum::start_full_buckets() {
  for (; next_bucket_ < buckets_.size() && buckets_[next_bucket_].missing == 0; ++next_bucket_) {
    Bucket& bucket = buckets_[next_bucket_];
    bucket.work = bucket.owner < 0 ? ranks_.all_reduce(bucket.data, ReduceOp::sum, "gradients")
                                   : ranks_.reduce(bucket.data, bucket.owner, "gradients");
  }
}

void GradientSum::lane_done() {
  ++lanes_done_;
  if (last_pass_) {
    for (const Variable& p : parameters_) p.set_grad_hook({});
    // Parameters that this pass did not reach.
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (!ready_[i]) on_ready(i);
    pending_.clear();
    return;
  }
  std::vector<Tensor> grads;
  for (const Variable& p : parameters_) {
    grads.push_back(std::move(p.grad()));
    p.zero_grad();
  }
  Pending mine{0, std::move(grads)};
  while (!pending_.empty() && pending_.back().level == mine.level) {
    Pending& before = pending_.back();
    for (size_t i = 0; i < mine.grads.size(); ++i) {
      if (!mine.grads[i].defined()) continue;
      if (before.grads[i].defined())
        add(before.grads[i], mine.grads[i]);
      else
        before.grads[i] = mine.grads[i];
      mine.grads[i] = Tensor();
    }
    mine = {before.level + 1, std::move(before.grads)};
    pending_.pop_back();
  }
  pending_.push_back(std::move(mine));
}

void GradientSum::take_sums(Bucket& bucket) {
  const bool wanted = bucket.owner < 0 || bucket.owner == ranks_.rank();
  for (const Member& m : bucket.members)
    if (wanted) parameters_[m.parameter].grad() = bucket.data.rows(m.begin, m.end).reshape(parameters_[m.parameter].shape());
  bucket.data = Tensor();  // lives on in the gradients that look into it
  bucket.work = Work();
}

void GradientSum::finish() {
  MOBA_ASSERT(last_pass_ && lanes_done_ == lanes_here_);
  const auto begin = std::chrono::steady_clock::now();
  for (Bucket& bucket : buckets_) {
    bucket.work.wait();
    reduction_seconds_ += bucket.work.seconds();
    take_sums(bucket);
  }
  waited_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  lanes_done_ = 0;
  last_pass_ = false;
}

double tree_sum(std::vector<double> values) {
  MOBA_ASSERT(is_power_of_two(static_cast<int64_t>(values.size())));
  for (size_t n = values.size(); n > 1; n /= 2)
    for (size_t i = 0; i < n / 2; ++i) values[i] = values[2 * i] + values[2 * i + 1];
  return values[0];
}

}  // namespace moba
