// Communication between the ranks of one run. One interface, three backends: self (one process), MPI (host memory), NCCL (device
// memory). All ranks issue the same operations in the same order; operations of one communicator run in the order of issue on a
// thread of their own, so compute goes on meanwhile.
//
// Sums are made in a fixed binary tree over ranks, ((0+1)+(2+3))+..., not in the order the library likes, so that a sum over P
// ranks of one part each has the bits of a sum over fewer ranks of subtrees each (P a power of two; other P: the last subtrees are short).
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/autograd/tensor.h"

namespace moba {

enum class ReduceOp : uint8_t { sum, max, min };

// A started operation. wait() returns when its result is there; throws Error(rank_lost) after the time limit, naming the
// operation, and what the operation itself threw. Buffers belong to the operation until then. Waiting twice is allowed.
class Work {
 public:
  Work() = default;  // of nothing: wait() returns at once
  void wait() const;
  bool done() const;
  double seconds() const;  // that the operation itself took, once it is done; its wait for earlier operations is not counted

  struct State;
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string backend() const = 0;      // "self", "mpi", "nccl"
  virtual Device device() const { return {}; }  // where tensors must be

  // `what` names the operation in messages ("gradients, bucket 3"). Tensors: f32, bf16, f64, i32, i64 as the type system has them,
  // contiguous, on the backend's device, same shape on all ranks. bf16 sums are added in fp32 and rounded once per tree level.
  virtual Work all_reduce(const Tensor& inout, ReduceOp op, const char* what) = 0;
  virtual Work reduce(const Tensor& inout, int root, const char* what) = 0;  // sum; elsewhere than at root inout is left undefined
  virtual Work reduce_scatter(const Tensor& in, const Tensor& out, const char* what) = 0;  // in: size() pieces of out's size; sum
  virtual Work all_gather(const Tensor& in, const Tensor& out, const char* what) = 0;      // out: size() pieces of in's size
  virtual Work broadcast(const Tensor& inout, int root, const char* what) = 0;
  virtual Work barrier(const char* what) = 0;
  virtual Work all_to_all(const Tensor& in, const Tensor& out, const char* what) = 0;  // size() equal pieces each
  virtual Work all_to_all_v(const Tensor& in, std::span<const int64_t> send_elements, const Tensor& out,
                            std::span<const int64_t> receive_elements, const char* what) = 0;
  // A send and a receive with the same rank may wait for each other on nccl: exchange by all_to_all_v there.
  virtual Work send(const Tensor& tensor, int to, const char* what) = 0;
  virtual Work receive(const Tensor& tensor, int from, const char* what) = 0;
  // Ranks of equal color, ordered by key, then rank. Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // One string of each rank, by rank; for names, digests and errors.
  std::vector<std::string> all_gather_strings(const std::string& mine, const char* what);

 protected:
  Communicator() = default;
};

std::unique_ptr<Communicator> make_self_communicator();

}  // namespace moba
