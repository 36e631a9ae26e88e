// A run's ranks, as its steps see them: which samples are this rank's, and what the ranks add up or agree on.
//
// Every figure that decides something (loss, gradient norm, signals) is the same on all ranks, so all take the same branches, and
// has the same bits for any number of ranks, so weights do too.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "src/data/sampler.h"
#include "src/distributed/gradient_sum.h"
#include "src/optim/optimizer.h"

namespace moba {

// [begin, end)
struct IndexRange {
  int64_t begin = 0, end = 0;
};

// Signals that reached any rank.
struct Requests {
  bool stop = false, save = false;
};

class DataParallel {
 public:
  // lanes: of all ranks together, a power of two and a multiple of their number. zero_stage 0 or 1.
  DataParallel(Communicator& ranks, int64_t lanes, int zero_stage, std::vector<OptimizerParameter> parameters);

  Communicator& ranks() const { return ranks_; }
  int64_t lanes_here() const { return lanes_ / ranks_.size(); }
  // Micro-batches of this rank's lane (0 .. lanes_here() - 1), counted from this rank's first.
  IndexRange micro_batches(int64_t lane, int64_t of_the_step) const;
  // This rank's samples of a step.
  SampleShare share(int64_t samples, int64_t micro_batch_size) const;

  GradientSum& gradients() { return gradients_; }
  int64_t sum(int64_t mine, const char* what) const;
  // The loss of the step from this rank's loss of each of its lanes. The signals of all ranks travel with it.
  double total_loss(const std::vector<double>& lane_losses);

  // Where this rank's signals come from; asked once a step and by agree().
  void set_signals(std::function<Requests()> poll) { poll_ = std::move(poll); }
  // What any rank was asked to do, as of the last step or agree(): the same on all ranks.
  Requests requests() const { return requests_; }
  Requests agree();
  double grad_norm() const;  // of the summed gradients

  // Owner of each parameter: writes it into checkpoints and, with zero_stage 1, updates it.
  const std::vector<int>& owners() const { return owners_; }
  static std::vector<int> owners_of(const std::vector<OptimizerParameter>& parameters, int ranks);
  bool sharded() const { return zero_stage_ > 0 && ranks_.size() > 1; }
  std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config) const;

 private:
  int64_t first_micro_batch(int64_t lane, int64_t of_the_step) const { return lane * of_the_step / lanes_; }

  Communicator& ranks_;
  int64_t lanes_;
  int zero_stage_;
  std::vector<OptimizerParameter> parameters_;
  std::vector<int> owners_;
  GradientSum gradients_;
  std::function<Requests()> poll_ = [] { return Requests{}; };
  Requests requests_;
};

}  // namespace moba
