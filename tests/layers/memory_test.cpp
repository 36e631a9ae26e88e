// The predicted peak against what the caching allocator saw while a model trained a step.
#include "src/layers/memory.h"

#include "src/autograd/tensor.h"
#include "tests/layers/model_support.h"

namespace moba::test {
namespace {

TransformerConfig wide_config() {
  TransformerConfig c;
  c.hidden_size = 128;
  c.intermediate_size = 352;
  c.num_hidden_layers = 6;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.vocab_size = 2048;
  c.max_position_embeddings = 1024;
  return c;
}

// Peak of one step of `micro_batches` forwards and backwards, without optimizer state.
int64_t measured_peak(const TransformerConfig& c, const TrainingShape& s) {
  release_cached_memory();
  const int64_t before = memory_stats().allocated;
  Transformer model(c, s.dtype, 1);
  ForwardOptions options;
  options.layers = s.layers;
  options.checkpoint_blocks = s.checkpoint_blocks;
  TokenBatch batch = random_batch(c.vocab_size, std::vector<int64_t>(static_cast<size_t>(s.micro_batch_size), s.sequence_length), 5);
  batch.targets = batch.tokens;  // every target counts
  reset_peak_memory();
  for (int64_t i = 0; i < s.micro_batches; ++i) backward(model.loss(batch, options, 0.001));
  return memory_stats().peak_allocated - before;
}

struct Case {
  const char* name;
  std::function<void(TransformerConfig&, TrainingShape&)> change;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"fp32", [](auto&, auto&) {}},
      {"fp32_checkpointed", [](auto&, auto& s) { s.checkpoint_blocks = true; }},
      {"bf16", [](auto&, auto& s) { s.dtype = DType::bf16; }},
      {"bf16_checkpointed", [](auto&, auto& s) { s.dtype = DType::bf16, s.checkpoint_blocks = true; }},
      {"fp32_full_accumulated", [](auto&, auto& s) { s.micro_batches = 2, s.layers.assign(6, full_attention()); }},
      {"bf16_tied_accumulated", [](auto& c, auto& s) { s.dtype = DType::bf16, s.micro_batches = 2, c.tie_word_embeddings = true; }},
      {"fp32_every_option", [](auto& c, auto&) { c.qk_norm = true, c.key_conv = 3; }},
      {"fp32_weights_dominate", [](auto& c, auto& s) { s.sequence_length = 64, c.intermediate_size = 1024; }},
  };
  return all;
}

class MemoryPrediction : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Cases, MemoryPrediction, ::testing::Range<size_t>(0, 8),
                         [](const auto& info) { return cases()[info.param].name; });

TEST_P(MemoryPrediction, TensorsWithinFivePercent) {
  TransformerConfig c = wide_config();
  TrainingShape s;
  s.sequence_length = 512;
  s.micro_batch_size = 2;
  s.layers.assign(6, moba_attention(64, 3));
  cases()[GetParam()].change(c, s);
  const MemoryEstimate estimate = training_memory(c, s);
  // Nothing of an optimizer is in this measurement.
  const int64_t optimizer = 2 * parameter_count(c) * 4;
  const auto predicted = static_cast<double>(estimate.tensors() - optimizer), measured = static_cast<double>(measured_peak(c, s));
  RecordProperty("ratio", std::to_string(predicted / measured));
  EXPECT_NEAR(predicted / measured, 1, 0.05) << "predicted " << predicted << ", measured " << measured << ", peak in " << estimate.moment;
}

}  // namespace
}  // namespace moba::test
