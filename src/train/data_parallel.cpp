#include "src/train/data_parallel.h"

#include "src/optim/ownership.h"
#include "src/optim/sharded_optimizer.h"

namespace moba {
namespace {

std::vector<Variable> leaves_of(const std::vector<OptimizerParameter>& parameters) {
  std::vector<Variable> leaves;
  for (const OptimizerParameter& p : parameters) leaves.push_back(p.value);
  return leaves;
}

}  // namespace

std::vector<int> DataParallel::owners_of(const std::vector<OptimizerParameter>& parameters, int ranks) {
  std::vector<int64_t> elements;
  for (const OptimizerParameter& p : parameters) elements.push_back(numel(p.value.shape()));
  return assign_owners(elements, ranks);
}

DataParallel::DataParallel(Communicator& ranks, int64_t lanes, int zero_stage, std::vector<OptimizerParameter> parameters)
    : ranks_(ranks),
      lanes_(lanes),
      zero_stage_(zero_stage),
      parameters_(std::move(parameters)),
      owners_(owners_of(parameters_, ranks.size())),
      gradients_(ranks, leaves_of(parameters_), sharded() ? owners_ : std::vector<int>{}, lanes_here()) {
  MOBA_ASSERT(lanes_ % ranks.size() == 0);
}

IndexRange DataParallel::micro_batches(int64_t lane, int64_t of_the_step) const {
  const int64_t first_lane = ranks_.rank() * lanes_here(), first = first_micro_batch(first_lane, of_the_step);
  return {first_micro_batch(first_lane + lane, of_the_step) - first, first_micro_batch(first_lane + lane + 1, of_the_step) - first};
}

SampleShare DataParallel::share(int64_t samples, int64_t micro_batch_size) const {
  const int64_t micro_batches = samples / micro_batch_size, first_lane = ranks_.rank() * lanes_here();
  const int64_t begin = first_micro_batch(first_lane, micro_batches), end = first_micro_batch(first_lane + lanes_here(), micro_batches);
  return {begin * micro_batch_size, (end - begin) * micro_batch_size, samples};
}

int64_t DataParallel::sum(int64_t mine, const char* what) const {
  if (ranks_.size() == 1) return mine;
  const Tensor value = Tensor::from(std::vector<int64_t>{mine}, {1});
  ranks_.all_reduce(value, ReduceOp::sum, what).wait();
  return value.data<int64_t>()[0];
}

double DataParallel::total_loss(const std::vector<double>& lane_losses) {
  requests_ = poll_();
  if (ranks_.size() == 1) return tree_sum(lane_losses);
  std::vector<double> mine = lane_losses;
  mine.push_back(requests_.stop);
  mine.push_back(requests_.save);
  const auto width = static_cast<int64_t>(mine.size());
  const Tensor all = Tensor::empty({ranks_.size() * width}, DType::f64);
  ranks_.all_gather(Tensor::from(mine, {width}), all, "loss").wait();
  std::vector<double> losses;
  for (int64_t rank = 0; rank < ranks_.size(); ++rank) {
    const double* row = all.data<double>() + rank * width;
    losses.insert(losses.end(), row, row + lanes_here());
    requests_.stop |= row[lanes_here()] != 0;
    requests_.save |= row[lanes_here() + 1] != 0;
  }
  return tree_sum(losses);
}

Requests DataParallel::agree() {
  requests_ = poll_();
  if (ranks_.size() == 1) return requests_;
  const Tensor flags = Tensor::from(std::vector<int32_t>{requests_.stop, requests_.save}, {2});
  ranks_.all_reduce(flags, ReduceOp::max, "signals").wait();
  return requests_ = {flags.data<int32_t>()[0] != 0, flags.data<int32_t>()[1] != 0};
}

double DataParallel::grad_norm() const {
  std::vector<double> squares = grad_squares(parameters_);
  if (!sharded()) return global_norm(squares);
  // Each is 0 but on its owner, so that adding them up is exact.
  const Tensor all = Tensor::from(squares, {static_cast<int64_t>(squares.size())});
  ranks_.all_reduce(all, ReduceOp::sum, "gradient norm").wait();
  return global_norm(all.to_vector<double>());
}

std::unique_ptr<Optimizer> DataParallel::make_optimizer(const OptimizerConfig& config) const {
  if (sharded()) return std::make_unique<ShardedOptimizer>(config, parameters_, owners_, ranks_);
  return moba::make_optimizer(config, parameters_);
}

}  // namespace moba
