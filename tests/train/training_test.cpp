// The step and its plan: a tiny model learns, micro-batches add up, threads change no bit, stages and schedules do what they say.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/threads.h"
#include "src/train/batch.h"
#include "src/train/data_stream.h"
#include "src/train/evaluate.h"
#include "src/train/run_plan.h"
#include "src/train/training_step.h"
#include "tests/support/compare.h"
#include "tests/train/train_support.h"

namespace moba::test {
namespace {

struct Training {
  explicit Training(const Recipe& r)
      : recipe(r),
        plan(r, {}),
        data(r),
        model(r.model, DType::f32, r.seed),
        parameters(optimizer_parameters(model)),
        parallel(*alone, std::max<int64_t>(r.lanes, 1), 0, parameters),
        optimizer(parallel.make_optimizer(r.optimizer)) {}

  std::vector<double> run(int64_t steps) {
    std::vector<double> losses;
    for (int64_t i = 0; i < steps; ++i) losses.push_back(step().loss);
    return losses;
  }
  StepResult step() {
    plan.enter_stage(progress);
    return step_on(next_samples());
  }
  StepResult step_on(const std::vector<Sample>& samples) {
    const StepResult result = training_step(model, *optimizer, parameters, samples, plan.at(progress),
                                            {recipe.micro_batch_size, recipe.grad_clip}, progress.step + 1, parallel);
    plan.advance(progress);
    return result;
  }
  std::vector<Sample> next_samples() {
    return data.next(progress, parallel.share(plan.samples_per_step(progress.stage), recipe.micro_batch_size));
  }
  std::vector<float> weights() const {
    std::vector<float> out;
    for (const OptimizerParameter& p : parameters) {
      const auto values = p.master.to_vector<float>();
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  }

  Recipe recipe;
  Progress progress;
  RunPlan plan;
  DataStream data;
  Transformer model;
  std::vector<OptimizerParameter> parameters;
  std::unique_ptr<Communicator> alone = make_self_communicator();
  DataParallel parallel;
  std::unique_ptr<Optimizer> optimizer;
};

std::vector<double> as_double(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// Losses of the tiny recipe, fp32. Other instruction sets sum in another order: hence the tolerance, which ten steps of a diverging
// sum would break.
const std::vector<double> kTenLosses = {5.56533, 5.33414, 4.98868, 4.60939, 4.70434, 4.10569, 3.78170, 3.52721, 3.32051, 3.12388};

TEST(Training, TinyModelLearnsAsRecorded) {
  const TrainFolder folder;
  Training training(folder.recipe());
  const std::vector<double> losses = training.run(10);
  EXPECT_TRUE(close_each("losses", losses, kTenLosses, 0, 2e-3));
  EXPECT_NEAR(losses.front(), std::log(257.0), 0.1) << "an untrained model knows nothing";
  EXPECT_LT(losses.back(), losses.front() - 1.5);
}

TEST(Training, MicroBatchesAddUpToTheGlobalBatch) {
  const TrainFolder folder;
  const Recipe whole = folder.recipe({"train.micro_batch_size=8"}), parts = folder.recipe({"train.micro_batch_size=1"});
  Training a(whole), b(parts);
  const auto samples = a.next_samples();
  const ForwardOptions options = a.plan.at(a.progress).forward;
  EXPECT_NEAR(accumulate_gradients(a.model, options, samples, 8, a.parallel),
              accumulate_gradients(b.model, options, samples, 1, b.parallel), 1e-6);
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    const auto ga = a.parameters[i].value.grad().to_vector<float>(), gb = b.parameters[i].value.grad().to_vector<float>();
    EXPECT_TRUE(close_rms(a.parameters[i].name, as_double(gb), as_double(ga), 1e-5));
  }
}

// ((0+1)+(2+3))+((4+5)+(6+7)), with each lane's own sum in front, made here by hand from single micro-batches.
TEST(Training, LanesAreAddedInABinaryTree) {
  const TrainFolder folder;
  for (const int64_t lanes : {1, 2, 4, 8}) {
    Recipe recipe = folder.recipe({"train.micro_batch_size=1", fmt::format("parallel.lanes={}", lanes)});
    Training laned(recipe);
    recipe.lanes = 1;
    Training single(recipe);
    const auto samples = laned.next_samples();
    ASSERT_EQ(samples.size(), 8u);
    const ForwardOptions options = laned.plan.at(laned.progress).forward;
    const double loss = accumulate_gradients(laned.model, options, samples, 1, laned.parallel);
    const double scale = 1.0 / static_cast<double>(counted_targets(samples));
    // Sums of the lanes: losses, and gradients of each parameter.
    std::vector<double> losses(static_cast<size_t>(lanes), 0);
    std::vector<std::vector<std::vector<float>>> sums(static_cast<size_t>(lanes));
    for (size_t lane = 0; lane < sums.size(); ++lane) {
      const size_t each = samples.size() / sums.size();
      for (size_t i = 0; i < each; ++i) {
        const Variable part = single.model.loss(pack_batch(std::span(samples).subspan(lane * each + i, 1)), options, scale);
        losses[lane] += part.value().item();
        backward(part);
      }
      for (const OptimizerParameter& p : single.parameters) {
        sums[lane].push_back(p.value.grad().to_vector<float>());
        p.value.zero_grad();
      }
    }
    for (size_t distance = 1; distance < sums.size(); distance *= 2)
      for (size_t lane = 0; lane < sums.size(); lane += 2 * distance) {
        losses[lane] += losses[lane + distance];
        for (size_t p = 0; p < sums[lane].size(); ++p)
          for (size_t i = 0; i < sums[lane][p].size(); ++i) sums[lane][p][i] += sums[lane + distance][p][i];
      }
    EXPECT_EQ(loss, losses[0]) << lanes << " lanes";
    for (size_t p = 0; p < sums[0].size(); ++p) {
      const auto got = laned.parameters[p].value.grad().to_vector<float>();
      EXPECT_TRUE(same_bits(laned.parameters[p].name, got.data(), sums[0][p].data(), got.size() * sizeof(float))) << lanes << " lanes";
    }
  }
}

TEST(Training, EveryThreadCountGivesTheSameBits) {
  const TrainFolder folder;
  const int before = num_threads();
  std::vector<std::vector<float>> weights;
  for (int threads : {1, 2, 4}) {
    set_num_threads(threads);
    Training training(folder.recipe());
    training.run(10);
    weights.push_back(training.weights());
  }
  set_num_threads(before);
  for (size_t i = 1; i < weights.size(); ++i)
    EXPECT_TRUE(same_bits("weights after ten steps", weights[i].data(), weights[0].data(), weights[0].size() * sizeof(float)));
}

TEST(Training, CheckpointedBlocksGiveTheSameBits) {
  const TrainFolder folder;
  Training plain(folder.recipe()), recomputed(folder.recipe({"train.activation_checkpointing=block"}));
  EXPECT_EQ(plain.run(4), recomputed.run(4));
  const auto a = plain.weights(), b = recomputed.weights();
  EXPECT_TRUE(same_bits("weights", b.data(), a.data(), a.size() * sizeof(float)));
}

TEST(Training, NonFiniteLossLeavesEverythingUntouched) {
  const TrainFolder folder;
  Training training(folder.recipe());
  training.run(2);
  // A NaN in the final norm makes the loss NaN.
  for (OptimizerParameter& p : training.parameters)
    if (p.name == "model.norm.weight") p.master.data<float>()[0] = std::nanf("");
  training.model.refresh_compute_copies();
  const auto before = training.weights();
  const StepResult result = training.step();
  EXPECT_FALSE(result.updated);
  EXPECT_FALSE(std::isfinite(result.loss));
  const auto after = training.weights();
  EXPECT_TRUE(same_bits("weights", after.data(), before.data(), before.size() * sizeof(float)));
  for (const OptimizerParameter& p : training.parameters) EXPECT_FALSE(p.value.has_grad()) << p.name;
}

// A switch touches neither weights nor optimizer.
TEST(Training, FirstLossAfterASwitchIsThatOfTheSameWeightsWithTheOtherAttention) {
  const TrainFolder folder;
  const std::string schedule = "model.attention.schedule=[{until: 4096, type: moba}, {until: 1, type: full}]";
  Training switched(folder.recipe({schedule})), moba_only(folder.recipe());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(switched.step().loss, moba_only.step().loss) << "before the switch";
  EXPECT_EQ(switched.plan.at(switched.progress).attention, "full");
  // The same weights, loaded afresh into a run with full attention only, at the same batch.
  Training full(folder.recipe({}, "full"));
  for (size_t i = 0; i < full.parameters.size(); ++i) full.parameters[i].master.copy_from(moba_only.parameters[i].master);
  full.model.refresh_compute_copies();
  full.progress = moba_only.progress;
  const double expected = full.step().loss, got = switched.step().loss;
  EXPECT_NEAR(got, expected, 1e-6 * expected);
  EXPECT_NE(got, moba_only.step().loss) << "the switch must have had an effect";
}

// Which targets count, and that the loss is over them alone.
TEST(Training, SftTrainsOnResponsesOrOnEverything) {
  const TrainFolder folder;
  {
    TokenDatasetWriter writer(folder.path("sft.h5"), 257, 256, -1, make_byte_tokenizer()->json(), true);
    for (int d = 0; d < 24; ++d) {
      std::vector<int32_t> tokens;
      std::vector<uint8_t> counts;
      for (int i = 0; i < 30 + d; ++i) tokens.push_back(65 + (i + d) % 26), counts.push_back(i >= 20 && i < 25);
      tokens.push_back(256), counts.push_back(0);
      writer.add_document(tokens, counts);
    }
    writer.finish();
  }
  const std::vector<std::string> sft = {"task=sft", "data.train=[{path: " + folder.path("sft.h5") + "}]", "eval.interval=0"};
  std::vector<std::string> everything = sft;
  everything.push_back("sft.train_on_prompt=true");
  Training responses(folder.recipe(sft)), all(folder.recipe(everything));
  const auto counted = responses.next_samples(), every = all.next_samples();
  for (size_t i = 0; i < counted.size(); ++i) {
    ASSERT_EQ(counted[i].tokens, every[i].tokens) << "the same rows";
    for (size_t piece = 0; piece + 1 < counted[i].cu_seqlens.size(); ++piece) {
      const int32_t begin = counted[i].cu_seqlens[piece], end = counted[i].cu_seqlens[piece + 1];
      const bool padding = counted[i].tokens[static_cast<size_t>(begin)] == 256;
      for (int32_t t = begin; t < std::min(end, 127); ++t) {  // the row's last target may be the end of an example or padding
        const bool response = !padding && t - begin + 1 >= 20 && t - begin + 1 < 25;
        const bool last = t + 1 == end;  // its target, if any, is the next example's
        const auto at = static_cast<size_t>(t);
        EXPECT_EQ(counted[i].targets[at] >= 0, response) << "row " << i << ", token " << t;
        EXPECT_EQ(every[i].targets[at] >= 0, !padding && !last) << "row " << i << ", token " << t;
      }
    }
  }
  // Losses differ, and both are means over what counts: an untrained model knows nothing of either.
  const double a = responses.step_on(counted).loss, b = all.step_on(every).loss;
  EXPECT_NE(a, b);
  for (const double loss : {a, b}) EXPECT_NEAR(loss, std::log(257.0), 0.2);
}

TEST(RunPlan, StagesBeginAtTheFirstStepPastTheirStart) {
  const TrainFolder folder;
  const Recipe r = folder.recipe(
      {"train.stages=[{sequence_length: 64, until: 2500}, {sequence_length: 128, until: 0.5}, {sequence_length: 256, until: 1}]",
       "train.sequence_length=256", "train.micro_batch_size=1", "eval.trailing=0"});
  const RunPlan plan(r, {});
  EXPECT_EQ(plan.total_tokens(), 20 * 1024);
  Progress p;
  std::vector<int64_t> lengths;
  while (!plan.finished(p)) {
    plan.enter_stage(p);
    lengths.push_back(plan.at(p).sequence_length);
    plan.advance(p);
  }
  // 2500 tokens are reached after three steps, half of the run after ten.
  std::vector<int64_t> want(3, 64);
  want.insert(want.end(), 7, 128);
  want.insert(want.end(), 10, 256);
  EXPECT_EQ(lengths, want);
  EXPECT_EQ(p.tokens, 20 * 1024);
  EXPECT_EQ(p.samples, 10 * 4);
}

// Stages 0 and 1 differ in attention alone, stage 2 in the sequence length.
TEST(RunPlan, StagesThatShareTheirSamplerGoOnAndResumeAnywhere) {
  const TrainFolder folder;
  const Recipe r = folder.recipe(
      {"train.stages=[{sequence_length: 128, until: 3072, attention: full}, {sequence_length: 128, until: 6144, attention: moba}, "
       "{sequence_length: 64, until: 1}]",
       "train.max_steps=8"});
  const RunPlan plan(r, {});
  DataStream whole(r);
  const Sampler first(stage_sampler(r, 0)), last(stage_sampler(r, 2));
  Progress p;
  std::vector<int64_t> stages;
  for (int64_t n = 0, in_last = 0; !plan.finished(p);) {
    const Progress saved = p;
    plan.enter_stage(p);
    stages.push_back(p.stage);
    const int64_t count = plan.samples_per_step(p.stage);
    const std::vector<Sample> samples = whole.next(p, {0, count, count});
    // The same step after a resume from the state that a checkpoint before it would hold.
    Progress resumed = progress_from_json(to_json(saved));
    plan.enter_stage(resumed);
    EXPECT_EQ(resumed, p);
    const std::vector<Sample> again = DataStream(r).next(resumed, {0, count, count});
    for (size_t i = 0; i < samples.size(); ++i) {
      const Sample want = p.stage < 2 ? first.sample(n++) : last.sample(in_last++);
      EXPECT_EQ(samples[i].tokens, want.tokens) << "step " << p.step + 1;
      EXPECT_EQ(again[i].tokens, want.tokens) << "step " << p.step + 1 << ", resumed";
    }
    plan.advance(p);
  }
  EXPECT_EQ(stages, (std::vector<int64_t>{0, 0, 0, 1, 1, 1, 2, 2}));
}

TEST(RunPlan, AStageWithOtherFilesBeginsWithTheirFirstSample) {
  const TrainFolder folder;
  const Recipe r = folder.recipe({"train.stages=[{sequence_length: 128, until: 2048}, {sequence_length: 128, until: 1, data: [{path: " +
                                  folder.path("validation.h5") + "}]}]"});
  const RunPlan plan(r, {});
  Progress p;
  for (int i = 0; i < 2; ++i) plan.enter_stage(p), plan.advance(p);
  EXPECT_EQ(p.samples, 16);
  EXPECT_TRUE(plan.enter_stage(p));
  EXPECT_EQ(p.samples, 0);
}

TEST(RunPlan, LengthInTokensRoundsUpAndSurvivesAChangeOfBatch) {
  const TrainFolder folder;
  Recipe r = folder.recipe({"train.max_tokens=5000"});
  EXPECT_EQ(RunPlan(r, {}).total_steps(), 5);
  // Two steps of 1024 done; the rest in steps of 512.
  r.global_batch_tokens = 512;
  EXPECT_EQ(RunPlan(r, {2, 2048, 0, 16}).total_steps(), 2 + 6);
}

TEST(Evaluation, AgreesWithTheTrainingLossAndIsIndependentOfThePass) {
  const TrainFolder folder;
  Training training(folder.recipe());
  training.run(3);
  EvaluationConfig config;
  config.files = {folder.path("validation.h5")};
  config.sequence_length = 128;
  config.bins = 4;
  config.trailing = 16;
  config.tokens_per_pass = 128;
  const ForwardOptions options = training.plan.at(training.progress).forward;
  const auto one = evaluate(training.model, options, config);
  config.tokens_per_pass = 1024;
  const auto many = evaluate(training.model, options, config);
  ASSERT_TRUE(one && many);
  EXPECT_NEAR(one->loss, many->loss, 1e-6);
  EXPECT_EQ(one->targets, many->targets);
  ASSERT_EQ(one->position_loss.size(), 4u);
  ASSERT_TRUE(one->trailing_loss);
  // A window needs its 128 tokens and the target of the last, all in one document.
  const TokenDataset data(folder.path("validation.h5"));
  int64_t windows = 0;
  for (size_t d = 0; d + 1 < data.document_offsets().size(); ++d)
    windows += (data.document_offsets()[d + 1] - data.document_offsets()[d] - 1) / 128;
  EXPECT_EQ(one->windows, windows);
  config.bins = 8;  // the last bin is the trailing 16 tokens
  const auto eight = evaluate(training.model, options, config);
  EXPECT_DOUBLE_EQ(*eight->trailing_loss, eight->position_loss.back());
  // 640 tokens: a document of exactly five windows lacks the last target, so four count.
  {
    TokenDatasetWriter writer(folder.path("exact.h5"), 257, 256, -1, make_byte_tokenizer()->json(), false);
    writer.add_document(std::vector<int32_t>(640, 65));
    writer.finish();
  }
  config.files = {folder.path("exact.h5")};
  EXPECT_EQ(evaluate(training.model, options, config)->windows, 4);
  EXPECT_GT(one->bits_per_byte, one->loss / std::log(2.0) * 0.99) << "bytes are the tokens, but for the end of documents";
  // Every query of 128 tokens in blocks of 16 reads its own block and up to two others.
  const HeadRouting total = one->routing.total();
  EXPECT_EQ(total.own_entries, total.queries);
  EXPECT_NEAR(total.own_share(), 128.0 / (128 + 16 + 2 * 96), 1e-12);
  const auto stopped = evaluate(training.model, options, config, [] { return true; });
  EXPECT_FALSE(stopped);
}

}  // namespace
}  // namespace moba::test
