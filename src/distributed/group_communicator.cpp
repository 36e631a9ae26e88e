#include "src/distributed/group_communicator.h"

#include <algorithm>
#include <numeric>

namespace moba {
namespace {

constexpr int kLastTag = 32766;  // MPI promises 32767

int64_t item_bytes(const Tensor& tensor) { return static_cast<int64_t>(dtype_size(tensor.dtype())); }

}  // namespace

std::unique_ptr<GroupCommunicator> GroupCommunicator::world(std::shared_ptr<Service> service, std::shared_ptr<Endpoint> endpoint) {
  std::vector<int> members(static_cast<size_t>(endpoint->size()));
  std::iota(members.begin(), members.end(), 0);
  auto group = std::make_shared<Group>(std::move(endpoint), *service, std::move(members), 0, "world");
  return std::make_unique<GroupCommunicator>(std::move(service), std::move(group));
}

void GroupCommunicator::check_tensor(const char* kind, const Tensor& tensor, const char* what) const {
  MOBA_CHECK(tensor.defined(), "{} '{}': the tensor is undefined", kind, what);
  const DType t = tensor.dtype();
  MOBA_CHECK(t == DType::f32 || t == DType::bf16 || t == DType::f64 || t == DType::i32 || t == DType::i64,
             "{} '{}': dtype {} is not supported; use f32, bf16, f64, i32 or i64", kind, what, dtype_name(t));
  const Device device = group_->endpoint().device();
  MOBA_CHECK(tensor.device() == device, "{} '{}': the tensor is on {}, backend {} works on {}", kind, what, to_string(tensor.device()),
             backend(), to_string(device));
}

void GroupCommunicator::check_rank(const char* kind, int rank, const char* what) const {
  MOBA_CHECK(rank >= 0 && rank < size(), "{} '{}': rank {} is not one of 0 to {}", kind, what, rank, size() - 1);
}

Work GroupCommunicator::collective(const char* kind, const char* what, std::vector<Tensor> held, std::function<void(Group&)> job) {
  const int64_t number = ++issued_;
  auto state = std::make_shared<Work::State>();
  state->name = fmt::format("{} #{} '{}'", kind, number, what);
  state->held = std::move(held);
  service_->submit(
      state, [service = service_.get(), group = group_, kind, number, name = state->name, what = std::string(what), job = std::move(job)] {
        service->board().enter(kind, what, group->label(), number, group->members());
        group->set_operation(name);
        job(*group);
        service->board().leave();
      });
  return Work(std::move(state));
}

Work GroupCommunicator::all_reduce(const Tensor& inout, ReduceOp op, const char* what) {
  check_tensor("all_reduce", inout, what);
  return collective("all_reduce", what, {inout},
                    [=, data = inout.raw(), n = inout.numel(), t = inout.dtype()](Group& g) { g.all_reduce(data, n, t, op); });
}

Work GroupCommunicator::reduce(const Tensor& inout, int root, const char* what) {
  check_tensor("reduce", inout, what);
  check_rank("reduce", root, what);
  return collective("reduce", what, {inout},
                    [=, data = inout.raw(), n = inout.numel(), t = inout.dtype()](Group& g) { g.reduce(data, n, t, root); });
}

Work GroupCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, const char* what) {
  check_tensor("reduce_scatter", in, what);
  check_tensor("reduce_scatter", out, what);
  MOBA_CHECK(in.numel() == out.numel() * size() && in.dtype() == out.dtype(),
             "reduce_scatter '{}': in has {} elements of {}, out {} of {}; in must be {} times out", what, in.numel(),
             dtype_name(in.dtype()), out.numel(), dtype_name(out.dtype()), size());
  return collective("reduce_scatter", what, {in, out},
                    [from = in.raw(), to = out.raw(), n = out.numel(), t = in.dtype()](Group& g) { g.reduce_scatter(from, to, n, t); });
}

Work GroupCommunicator::all_gather(const Tensor& in, const Tensor& out, const char* what) {
  check_tensor("all_gather", in, what);
  check_tensor("all_gather", out, what);
  MOBA_CHECK(out.numel() == in.numel() * size() && in.dtype() == out.dtype(),
             "all_gather '{}': in has {} elements of {}, out {} of {}; out must be {} times in", what, in.numel(), dtype_name(in.dtype()),
             out.numel(), dtype_name(out.dtype()), size());
  return collective("all_gather", what, {in, out},
                    [from = in.raw(), to = out.raw(), bytes = in.nbytes()](Group& g) { g.all_gather(from, to, bytes); });
}

Work GroupCommunicator::broadcast(const Tensor& inout, int root, const char* what) {
  check_tensor("broadcast", inout, what);
  check_rank("broadcast", root, what);
  return collective("broadcast", what, {inout},
                    [=, data = inout.raw(), bytes = inout.nbytes()](Group& g) { g.broadcast(data, bytes, root); });
}

Work GroupCommunicator::barrier(const char* what) {
  return collective("barrier", what, {}, [](Group& g) { g.barrier(); });
}

Work GroupCommunicator::all_to_all(const Tensor& in, const Tensor& out, const char* what) {
  check_tensor("all_to_all", in, what);
  MOBA_CHECK(in.numel() == out.numel() && in.numel() % size() == 0,
             "all_to_all '{}': in has {} elements, out {}; both must be the same multiple of {} ranks", what, in.numel(), out.numel(),
             size());
  const std::vector<int64_t> each(static_cast<size_t>(size()), in.numel() / size());
  return all_to_all_v(in, each, out, each, what);
}

Work GroupCommunicator::all_to_all_v(const Tensor& in, std::span<const int64_t> send_elements, const Tensor& out,
                                     std::span<const int64_t> receive_elements, const char* what) {
  check_tensor("all_to_all", in, what);
  check_tensor("all_to_all", out, what);
  const auto bytes = [&](std::span<const int64_t> elements, const Tensor& tensor, const char* name) {
    MOBA_CHECK(elements.size() == static_cast<size_t>(size()), "all_to_all '{}': {} counts {} for {} ranks", what, elements.size(), name,
               size());
    std::vector<int64_t> result(elements.begin(), elements.end());
    int64_t sum = 0;
    for (int64_t& n : result) {
      MOBA_CHECK(n >= 0, "all_to_all '{}': a count {} is negative: {}", what, name, n);
      sum += n;
      n *= item_bytes(tensor);
    }
    MOBA_CHECK(sum <= tensor.numel(), "all_to_all '{}': counts {} add up to {}, the tensor has {} elements", what, name, sum,
               tensor.numel());
    return result;
  };
  MOBA_CHECK(in.dtype() == out.dtype(), "all_to_all '{}': in is {}, out {}", what, dtype_name(in.dtype()), dtype_name(out.dtype()));
  auto sent = bytes(send_elements, in, "to send"), received = bytes(receive_elements, out, "to receive");
  const auto self = static_cast<size_t>(rank());
  MOBA_CHECK(sent[self] == received[self], "all_to_all '{}': rank {} sends itself {} elements and receives {}", what, rank(),
             send_elements[self], receive_elements[self]);
  return collective("all_to_all", what, {in, out},
                    [from = in.raw(), to = out.raw(), sent = std::move(sent), received = std::move(received)](Group& g) {
                      g.all_to_all(from, sent, to, received);
                    });
}

Work GroupCommunicator::point_to_point(const char* kind, const Tensor& tensor, int peer, const char* what) {
  check_tensor(kind, tensor, what);
  check_rank(kind, peer, what);
  MOBA_CHECK(peer != rank(), "{} '{}': rank {} is this rank itself", kind, what, peer);
  auto state = std::make_shared<Work::State>();
  state->name = fmt::format("{} '{}' {} rank {}", kind, what, kind[0] == 's' ? "to" : "from", peer);
  state->held = {tensor};
  std::vector<Message> messages;
  if (tensor.nbytes() > 0) messages.push_back({tensor.raw(), tensor.nbytes(), peer});
  auto start = [group = group_, messages = std::move(messages), sends = kind[0] == 's'] {
    return sends ? group->start_point_to_point(messages, {}) : group->start_point_to_point({}, messages);
  };
  if (group_->endpoint().concurrent()) {
    service_->submit_start(state, std::move(start));
  } else {
    service_->submit(state, [service = service_.get(), name = state->name, start = std::move(start)] { service->finish(*start(), name); });
  }
  return Work(std::move(state));
}

Work GroupCommunicator::send(const Tensor& tensor, int to, const char* what) { return point_to_point("send", tensor, to, what); }
Work GroupCommunicator::receive(const Tensor& tensor, int from, const char* what) { return point_to_point("receive", tensor, from, what); }

// A group needs no library call: it is the same transport with fewer ranks and a tag of its own, above all tags in use on any member.
std::unique_ptr<Communicator> GroupCommunicator::split(int color, int key) {
  const Tensor mine = Tensor::from<int64_t>({color, key, service_->next_tag()}, {3}).to(group_->endpoint().device());
  const Tensor all = Tensor::empty({size(), 3}, DType::i64, group_->endpoint().device());
  all_gather(mine, all, "split").wait();
  const std::vector<int64_t> values = all.to(Device{}).to_vector<int64_t>();
  int64_t tag = 0;
  std::vector<std::pair<int64_t, int>> order;  // key, rank
  for (int r = 0; r < size(); ++r) {
    const int64_t* row = &values[static_cast<size_t>(r) * 3];
    tag = std::max(tag, row[2]);
    if (row[0] == color) order.emplace_back(row[1], r);
  }
  MOBA_CHECK(tag + 1 <= kLastTag, "more than {} groups were split off: keep and reuse communicators", kLastTag / 2);
  service_->set_next_tag(static_cast<int>(tag) + 2);
  std::sort(order.begin(), order.end());
  std::vector<int> members;
  for (const auto& [unused, r] : order) members.push_back(group_->members()[static_cast<size_t>(r)]);
  auto label = fmt::format("{}/{}:{}", group_->label(), splits_++, color);
  return std::make_unique<GroupCommunicator>(
      service_, std::make_shared<Group>(group_->shared_endpoint(), *service_, std::move(members), static_cast<int>(tag), std::move(label)));
}

}  // namespace moba
