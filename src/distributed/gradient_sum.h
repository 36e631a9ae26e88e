// The sum of a step's gradients over lanes and ranks, with the same bits for any number of ranks.
//
// The micro-batches of a global batch are dealt to `lanes` (a power of two); a rank owns lanes / ranks of them, in a row. Within a
// lane gradients add up in the order of its micro-batches; lanes are added in a fixed binary tree, ((0+1)+(2+3))+((4+5)+(6+7)):
// the lower levels here, the levels above by Communicator, which keeps to the same tree.
//
// Reduction overlaps the last backward pass of a step: each parameter's gradient is finished by a hook of the tape, copied into
// its bucket, and a bucket is sent off when it is full, in an order that is the same on all ranks.
#pragma once
#include <deque>
#include <vector>

#include "src/autograd/variable.h"
#include "src/distributed/communicator.h"

namespace moba {

class GradientSum {
 public:
  // parameters: leaves, in the order of the model; buckets are made from the last to the first, as backward finishes them.
  // owners: rank that needs the sum of each parameter; elsewhere its gradient is dropped. Empty: every rank needs every sum.
  // lanes_here: lanes of this rank, a power of two. bucket_bytes 0: an eighth of the gradients, from 256 KiB to 32 MiB, so that also a
  // small model's reduction starts long before its backward pass ends. It changes no bit.
  GradientSum(Communicator& ranks, std::vector<Variable> parameters, std::vector<int> owners, int64_t lanes_here, int64_t bucket_bytes = 0);
  ~GradientSum();
  GradientSum(const GradientSum&) = delete;

  // Before the last backward pass of this rank's last lane.
  void begin_last_pass();
  // After each lane's last backward pass; the rank's last lane included.
  void lane_done();
  // After the last lane: waits for the reduction. Gradients are then the sums (or dropped, see owners).
  void finish();

  // Seconds that finish() waited, and that the reductions took on the communication thread, since construction.
  double waited_seconds() const { return waited_seconds_; }
  double reduction_seconds() const { return reduction_seconds_; }

 private:
  struct Member {
    size_t parameter;
    int64_t begin, end;  // elements of the bucket
  };
  struct Bucket {
    std::vector<Member> members;
    int owner = -1;  // -1: everyone
    int64_t elements = 0;
    DType dtype = DType::f32;
    Tensor data;  // while a step's reduction is under way
    size_t missing = 0;
    Work work;
  };
  // Gradients of 2^level lanes, added up.
  struct Pending {
    int level;
    std::vector<Tensor> grads;
  };

  void make_buckets(const std::vector<int>& owners, int64_t bucket_bytes);
  void on_ready(size_t parameter);
  void merge_pending(size_t parameter);
  void start_full_buckets();
  void take_sums(Bucket& bucket);

  Communicator& ranks_;
  std::vector<Variable> parameters_;
  int64_t lanes_here_;
  std::vector<Bucket> buckets_;
  std::vector<std::pair<size_t, size_t>> place_;  // bucket and member of each parameter
  std::deque<Pending> pending_;                   // levels falling
  std::vector<bool> ready_;
  int64_t lanes_done_ = 0;
  size_t next_bucket_ = 0;  // to be sent off
  bool last_pass_ = false;
  double waited_seconds_ = 0, reduction_seconds_ = 0;
};

// values[lane] added in the same tree; the number of values is a power of two.
double tree_sum(std::vector<double> values);

}  // namespace moba
