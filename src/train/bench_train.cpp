#include "src/train/bench_train.h"

#include <algorithm>

#include "kernels/common/bench.h"
#include "kernels/common/threads.h"
#include "src/train/data_stream.h"
#include "src/train/host.h"
#include "src/train/resolve.h"
#include "src/train/training_step.h"

namespace moba {
namespace {

constexpr double kPeakSeconds = 0.2;
constexpr int64_t kSyntheticVocabulary = 32768;  // where neither recipe nor data say

// One sequence of pseudo-random tokens, all targets counted.
Sample random_sample(int64_t length, int64_t vocab, uint64_t seed) {
  Sample sample;
  sample.cu_seqlens = {0, static_cast<int32_t>(length)};
  for (int64_t t = 0; t < length; ++t) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    sample.tokens.push_back(static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(vocab)));
    sample.positions.push_back(static_cast<int32_t>(t));
  }
  sample.targets.assign(sample.tokens.begin() + 1, sample.tokens.end());
  sample.targets.push_back(sample.tokens.front());
  return sample;
}

// Seconds of the parts of a step.
struct Parts {
  double data = 0, forward = 0, backward = 0, update = 0;
  double total() const { return data + forward + backward + update; }
};

class Bench {
 public:
  explicit Bench(Recipe recipe)
      : recipe_(std::move(recipe)), dtype_(resolve_precision(recipe_).dtype), synthetic_(!missing_inputs(recipe_).empty()) {
    if (synthetic_ && recipe_.model.vocab_size == 0) recipe_.model.vocab_size = kSyntheticVocabulary;
    if (!synthetic_) resolve_vocabulary(recipe_);
    resolve_micro_batch(recipe_);
    resolve_lanes(recipe_);
    validate(recipe_.model);
    peak_gflops_ = measure_peak_gflops(dtype_, num_threads(), kPeakSeconds);
    plan_ = std::make_unique<RunPlan>(recipe_, Progress{});
    if (!synthetic_) data_ = std::make_unique<DataStream>(recipe_);
    model_ = std::make_unique<Transformer>(recipe_.model, dtype_, recipe_.seed);
    parameters_ = optimizer_parameters(*model_);
    parallel_ = std::make_unique<DataParallel>(*alone_, recipe_.lanes, 0, parameters_);
    optimizer_ = parallel_->make_optimizer(recipe_.optimizer);
  }

  Parts step() {
    plan_->enter_stage(progress_);
    const StepPlan plan = plan_->at(progress_);
    Parts parts;
    double mark = now_seconds();
    const auto lap = [&mark](double& part) {
      const double now = now_seconds();
      part += now - mark;
      mark = now;
    };
    const std::vector<Sample> samples = next_samples(plan.sequence_length);
    const auto lap_of = [&](StepPart part) {
      switch (part) {
        case StepPart::data: return lap(parts.data);
        case StepPart::forward: return lap(parts.forward);
        case StepPart::backward:
        case StepPart::reduction: return lap(parts.backward);
        case StepPart::update: return lap(parts.update);
      }
    };
    training_step(*model_, *optimizer_, parameters_, samples, plan, {recipe_.micro_batch_size, recipe_.grad_clip}, progress_.step + 1,
                  *parallel_, lap_of);
    plan_->advance(progress_);
    return parts;
  }

  nlohmann::ordered_json report(std::vector<Parts> steps) const {
    std::ranges::sort(steps, {}, &Parts::total);
    const Parts& middle = steps[steps.size() / 2];
    const StepPlan plan = plan_->at({});
    const double tokens_per_sec = static_cast<double>(recipe_.global_batch_tokens) / middle.total();
    nlohmann::ordered_json config = host_description();
    config["recipe"] = recipe_.file;
    config["data"] = synthetic_ ? "synthetic" : "recipe";
    config["precision"] = dtype_ == DType::bf16 ? "bf16" : "fp32";
    config["attention"] = plan.attention;
    config["sequence_length"] = plan.sequence_length;
    config["global_batch_tokens"] = recipe_.global_batch_tokens;
    config["micro_batch_size"] = recipe_.micro_batch_size;
    config["parameters"] = parameter_count(recipe_.model);
    config["steps"] = steps.size();
    const auto share = [&](double part) { return part / middle.total(); };
    return {{"config", config},
            {"tokens_per_sec", tokens_per_sec},
            {"step_ms", 1e3 * middle.total()},
            {"mfu", plan.flops_per_token * tokens_per_sec / (peak_gflops_ * 1e9)},
            {"peak_gflops", peak_gflops_},
            {"peak_rss_bytes", peak_rss_bytes()},
            {"share",
             {{"data", share(middle.data)},
              {"forward", share(middle.forward)},
              {"backward", share(middle.backward)},
              {"update", share(middle.update)}}}};
  }

 private:
  std::vector<Sample> next_samples(int64_t length) {
    const int64_t count = plan_->samples_per_step(progress_.stage);
    if (data_) return data_->next(progress_, {0, count, count});
    std::vector<Sample> out;
    for (int64_t i = 0; i < count; ++i)
      out.push_back(random_sample(length, recipe_.model.vocab_size, static_cast<uint64_t>(progress_.samples + i)));
    return out;
  }

  Recipe recipe_;
  DType dtype_;
  bool synthetic_;
  double peak_gflops_ = 0;
  Progress progress_;
  std::unique_ptr<RunPlan> plan_;
  std::unique_ptr<DataStream> data_;
  std::unique_ptr<Transformer> model_;
  std::vector<OptimizerParameter> parameters_;
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  std::unique_ptr<DataParallel> parallel_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace

nlohmann::ordered_json bench_train(Recipe recipe, int64_t steps) {
  MOBA_CHECK(recipe.data_ranks == 1, "moba-bench train runs in one process; leave parallel.data out");
  MOBA_CHECK(steps >= 1, "--steps must be at least 1, got {}", steps);
  Bench bench(std::move(recipe));
  bench.step();
  std::vector<Parts> timed;
  for (int64_t i = 0; i < steps; ++i) timed.push_back(bench.step());
  return bench.report(std::move(timed));
}

}  // namespace moba
