#include "src/layers/generate.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "src/autograd/rng.h"
#include "src/layers/kv_cache.h"
#include "src/layers/sampling.h"

namespace moba {
namespace {

// Runs tokens through the model behind what the cache holds; logits [V] of the last one.
std::vector<float> last_logits(Transformer& model, std::span<const int32_t> tokens, const ForwardOptions& forward, KvCache& cache) {
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(cache.length()));
  TokenBatch batch;
  batch.tokens = Tensor::from<int32_t>({tokens.begin(), tokens.end()}, {count});
  batch.positions = Tensor::from<int32_t>(positions, {count});
  batch.sequences = one_sequence(count, count);
  const Variable hidden = model.hidden(batch, forward, &cache);
  return model.logits(hidden.value().rows(count - 1, count)).to(Device{}).to_vector<float>();
}

}  // namespace

void validate(const GenerateOptions& o, const TransformerConfig& config) {
  MOBA_CHECK(static_cast<int64_t>(o.prefill.size()) == config.num_hidden_layers, "generate: {} layer settings for a model of {} layers",
             o.prefill.size(), config.num_hidden_layers);
  MOBA_CHECK(o.prefill_chunk >= 1, "generate: prefill_chunk must be >= 1, got {}", o.prefill_chunk);
  MOBA_CHECK(o.max_new_tokens >= 0, "generate: max_new_tokens must be >= 0, got {}", o.max_new_tokens);
  MOBA_CHECK(o.temperature >= 0 && o.temperature < 1e6, "generate: temperature must be >= 0, got {}", o.temperature);
  MOBA_CHECK(o.top_p > 0 && o.top_p <= 1, "generate: top_p must be in (0, 1], got {}", o.top_p);
  MOBA_CHECK(o.vocabulary >= 0 && o.vocabulary <= config.vocab_size, "generate: vocabulary must be in 0 .. {}, got {}", config.vocab_size,
             o.vocabulary);
  for (const int32_t id : o.never)
    MOBA_CHECK(id >= 0 && id < config.vocab_size, "generate: never holds {}, the vocabulary is {}", id, config.vocab_size);
}

std::vector<LayerAttention> decode_layers(const GenerateOptions& options) {
  std::vector<LayerAttention> layers = options.prefill;
  for (LayerAttention& layer : layers)
    if (!options.moba_decode && layer.attention.type == kernels::AttentionType::moba) layer.attention.type = kernels::AttentionType::full;
  return layers;
}

std::vector<int32_t> generate(Transformer& model, std::span<const int32_t> prompt, const GenerateOptions& options) {
  validate(options, model.config());
  MOBA_CHECK(!prompt.empty(), "generate: the prompt has no tokens");
  std::vector<int32_t> generated;
  if (options.max_new_tokens == 0) return generated;
  const auto length = static_cast<int64_t>(prompt.size());
  KvCache cache(model.config(), length + options.max_new_tokens, model.dtype());

  ForwardOptions forward;
  forward.layers = options.prefill;
  forward.rope_scaling = options.rope_scaling;
  std::vector<float> logits;
  for (int64_t begin = 0; begin < length; begin += options.prefill_chunk) {
    const int64_t count = std::min(options.prefill_chunk, length - begin);
    logits = last_logits(model, prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), forward, cache);
  }

  forward.layers = decode_layers(options);
  Rng random(options.seed, hash_name("generate"));
  const int64_t vocabulary = options.vocabulary == 0 ? model.config().vocab_size : options.vocabulary;
  while (true) {
    for (const int32_t id : options.never) logits[static_cast<size_t>(id)] = std::numeric_limits<float>::quiet_NaN();  // chosen by nobody
    const std::span<const float> allowed(logits.data(), static_cast<size_t>(vocabulary));
    const int32_t token =
        options.temperature == 0 ? greedy_token(allowed) : sample_token(allowed, options.temperature, options.top_p, random.uniform());
    generated.push_back(token);
    if (options.on_token) options.on_token(token);
    if (token == options.eos_token_id || static_cast<int64_t>(generated.size()) == options.max_new_tokens) return generated;
    logits = last_logits(model, {&token, 1}, forward, cache);
  }
}

}  // namespace moba
