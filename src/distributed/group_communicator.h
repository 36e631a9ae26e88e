// Communicator over a Group: checks arguments in the caller's thread, then hands the work to the communication thread.
#pragma once
#include "src/distributed/group.h"

namespace moba {

class GroupCommunicator final : public Communicator {
 public:
  GroupCommunicator(std::shared_ptr<Service> service, std::shared_ptr<Group> group)
      : service_(std::move(service)), group_(std::move(group)) {}
  // All ranks of the endpoint's world.
  static std::unique_ptr<GroupCommunicator> world(std::shared_ptr<Service> service, std::shared_ptr<Endpoint> endpoint);

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string backend() const override { return group_->endpoint().backend(); }
  Device device() const override { return group_->endpoint().device(); }

  Work all_reduce(const Tensor& inout, ReduceOp op, const char* what) override;
  Work reduce(const Tensor& inout, int root, const char* what) override;
  Work reduce_scatter(const Tensor& in, const Tensor& out, const char* what) override;
  Work all_gather(const Tensor& in, const Tensor& out, const char* what) override;
  Work broadcast(const Tensor& inout, int root, const char* what) override;
  Work barrier(const char* what) override;
  Work all_to_all(const Tensor& in, const Tensor& out, const char* what) override;
  Work all_to_all_v(const Tensor& in, std::span<const int64_t> send_elements, const Tensor& out, std::span<const int64_t> receive_elements,
                    const char* what) override;
  Work send(const Tensor& tensor, int to, const char* what) override;
  Work receive(const Tensor& tensor, int from, const char* what) override;
  std::unique_ptr<Communicator> split(int color, int key) override;

  Group& group() { return *group_; }  // for tests

 private:
  Work collective(const char* kind, const char* what, std::vector<Tensor> held, std::function<void(Group&)> job);
  Work point_to_point(const char* kind, const Tensor& tensor, int peer, const char* what);
  void check_tensor(const char* kind, const Tensor& tensor, const char* what) const;
  void check_rank(const char* kind, int rank, const char* what) const;

  std::shared_ptr<Service> service_;
  std::shared_ptr<Group> group_;
  int64_t issued_ = 0, messages_ = 0;  // collectives; point to point
  int splits_ = 0;
};

}  // namespace moba
