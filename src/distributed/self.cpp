// One process: nothing travels. Arguments are checked as by the other backends, so that a run of one rank finds the same mistakes.
#include "src/distributed/communicator.h"

namespace moba {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "self"; }

  Work all_reduce(const Tensor& inout, ReduceOp, const char* what) override { return check("all_reduce", inout, what); }
  Work reduce(const Tensor& inout, int root, const char* what) override {
    check_rank("reduce", root, what);
    return check("reduce", inout, what);
  }
  Work reduce_scatter(const Tensor& in, const Tensor& out, const char* what) override { return copy("reduce_scatter", in, out, what); }
  Work all_gather(const Tensor& in, const Tensor& out, const char* what) override { return copy("all_gather", in, out, what); }
  Work broadcast(const Tensor& inout, int root, const char* what) override {
    check_rank("broadcast", root, what);
    return check("broadcast", inout, what);
  }
  Work barrier(const char*) override { return {}; }
  Work all_to_all(const Tensor& in, const Tensor& out, const char* what) override { return copy("all_to_all", in, out, what); }
  Work all_to_all_v(const Tensor& in, std::span<const int64_t> send, const Tensor& out, std::span<const int64_t> receive,
                    const char* what) override {
    check("all_to_all", in, what);
    check("all_to_all", out, what);
    MOBA_CHECK(send.size() == 1 && receive.size() == 1 && send[0] == receive[0] && send[0] >= 0 && send[0] <= in.numel() &&
                   send[0] <= out.numel() && in.dtype() == out.dtype(),
               "all_to_all '{}': one rank sends itself what it receives, within both tensors", what);
    if (send[0] == 0) return {};
    return copy("all_to_all", in.reshape({-1}).rows(0, send[0]), out.reshape({-1}).rows(0, send[0]), what);
  }
  Work send(const Tensor&, int to, const char* what) override { refuse("send", to, what); }
  Work receive(const Tensor&, int from, const char* what) override { refuse("receive", from, what); }
  std::unique_ptr<Communicator> split(int, int) override { return make_self_communicator(); }

 private:
  static Work check(const char* kind, const Tensor& tensor, const char* what) {
    MOBA_CHECK(tensor.defined(), "{} '{}': the tensor is undefined", kind, what);
    return {};
  }
  static void check_rank(const char* kind, int rank, const char* what) {
    MOBA_CHECK(rank == 0, "{} '{}': rank {} is not one of 0 to 0", kind, what, rank);
  }
  static Work copy(const char* kind, const Tensor& in, const Tensor& out, const char* what) {
    check(kind, in, what);
    check(kind, out, what);
    MOBA_CHECK(in.numel() == out.numel() && in.dtype() == out.dtype(), "{} '{}': in has {} elements of {}, out {} of {}", kind, what,
               in.numel(), dtype_name(in.dtype()), out.numel(), dtype_name(out.dtype()));
    if (in.numel() > 0 && in.raw() != out.raw()) out.copy_from(in);
    return {};
  }
  [[noreturn]] static void refuse(const char* kind, int rank, const char* what) {
    throw Error(fmt::format("{} '{}': there is no rank {} beside this one", kind, what, rank));
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace moba
