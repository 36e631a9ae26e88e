#include "src/layers/transformer.h"

#include "kernels/matmul/matmul.h"
#include "src/layers/block.h"

namespace moba {
namespace {

Tensor inverse_frequencies(const TransformerConfig& c, const kernels::RopeScaling& scaling, Device device) {
  const int64_t head_dim = c.resolved_head_dim();
  return Tensor::from<double>(kernels::rope_inv_freq(head_dim, c.rope_theta, scaling), {head_dim / 2}).to(device);
}

void check_i32_row(const char* name, const Tensor& t, int64_t tokens) {
  MOBA_CHECK(t.defined() && t.dtype() == DType::i32 && t.dim() == 1 && t.numel() == tokens, "batch: {} must be i32 [{}]", name, tokens);
}

}  // namespace

ForwardOptions uniform_options(const TransformerConfig& config, const LayerAttention& layer) {
  ForwardOptions options;
  options.layers.assign(static_cast<size_t>(config.num_hidden_layers), layer);
  options.rope_scaling = config.rope_scaling;
  return options;
}

struct Transformer::Impl {
  Impl(const TransformerConfig& c, DType type, std::optional<uint64_t> seed, Device where) : config(c), dtype(type), device(where) {
    validate(config);
    MOBA_CHECK(type == DType::f32 || type == DType::bf16 || type == DType::f64, "a model is f32, bf16 or f64, not {}", dtype_name(type));
    ParameterStore store(type, seed, where);
    table = store.embedding("model.embed_tokens.weight", c.vocab_size, c.hidden_size, c.initializer_range);
    for (int64_t i = 0; i < c.num_hidden_layers; ++i)
      blocks.push_back(std::make_unique<Block>(store, fmt::format("model.layers.{}.", i), config));
    norm = std::make_unique<RmsNorm>(store, "model.norm.weight", c.hidden_size, c.rms_norm_eps);
    head = c.tie_word_embeddings ? table : store.head("lm_head.weight", c.vocab_size, c.hidden_size, c.initializer_range);
    parameters = store.take();
  }

  void check(const TokenBatch& batch, const ForwardOptions& options) const;
  Variable run(const TokenBatch& batch, const ForwardOptions& options, KvCache* cache);
  Variable run_block(int64_t layer, const Variable& x, const LayerInputs& inputs, const ForwardOptions& options, KvCache* cache);

  TransformerConfig config;
  DType dtype;
  Device device;
  Variable table;                              // [V, C]
  std::vector<std::unique_ptr<Block>> blocks;  // by pointer: tapes refer to them
  std::unique_ptr<RmsNorm> norm;
  Variable head;  // [V, C]; the table itself if tied
  std::vector<Parameter> parameters;
};

void Transformer::Impl::check(const TokenBatch& batch, const ForwardOptions& options) const {
  MOBA_CHECK(batch.tokens.defined() && batch.tokens.numel() >= 1, "batch: no tokens");
  check_i32_row("tokens", batch.tokens, batch.tokens.numel());
  check_i32_row("positions", batch.positions, batch.tokens.numel());
  MOBA_CHECK(static_cast<int64_t>(options.layers.size()) == config.num_hidden_layers, "forward: {} layer settings for a model of {} layers",
             options.layers.size(), config.num_hidden_layers);
  MOBA_CHECK(!options.selections || options.selections->size() == options.layers.size(),
             "forward: selections must have one slot per layer, {}", config.num_hidden_layers);
}

Variable Transformer::Impl::run_block(int64_t layer, const Variable& x, const LayerInputs& inputs, const ForwardOptions& options,
                                      KvCache* cache) {
  Block& block = *blocks[static_cast<size_t>(layer)];
  auto slot = std::make_shared<SelectionSlot>();
  SelectionSlot* held = options.selections ? &(*options.selections)[static_cast<size_t>(layer)] : nullptr;
  if (held) *slot = *held;
  Variable y;
  if (cache) {
    y = block.forward_cached(x, inputs, cache->layer(layer), slot.get());
  } else if (options.checkpoint_blocks && grad_enabled()) {
    // The slot is filled by the first run and reused by the recomputation in backward.
    y = checkpoint([&block, inputs, slot](const std::vector<Variable>& in) { return block.forward(in[0], inputs, slot.get()); }, {x});
  } else {
    y = block.forward(x, inputs, slot.get());
  }
  if (held) *held = *slot;
  if (options.on_selection && slot->selected.defined()) options.on_selection(layer, slot->selected);
  return y;
}

Variable Transformer::Impl::run(const TokenBatch& batch, const ForwardOptions& options, KvCache* cache) {
  check(batch, options);
  LayerInputs inputs{batch.positions, inverse_frequencies(config, options.rope_scaling, device), batch.sequences, {}, {}};
  Variable x = ops::embedding(table, batch.tokens);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    inputs.layer = options.layers[static_cast<size_t>(layer)];
    if (options.on_heads)  // by value: recomputation may outlive the options
      inputs.on_heads = [use = options.on_heads, layer](const Tensor& q, const Tensor& k) { use(layer, q, k); };
    x = run_block(layer, x, inputs, options, cache);
  }
  return (*norm)(x);
}

Transformer::Transformer(const TransformerConfig& config, DType dtype, std::optional<uint64_t> seed, Device device)
    : impl_(std::make_unique<Impl>(config, dtype, seed, device)) {}
Transformer::~Transformer() = default;

const TransformerConfig& Transformer::config() const { return impl_->config; }
DType Transformer::dtype() const { return impl_->dtype; }
std::vector<Parameter>& Transformer::parameters() { return impl_->parameters; }

const Parameter& Transformer::parameter(const std::string& name) const {
  for (const Parameter& p : impl_->parameters)
    if (p.name == name) return p;
  throw Error(fmt::format("the model has no parameter '{}'", name));
}

Variable Transformer::loss(const TokenBatch& batch, const ForwardOptions& options, double scale, Tensor* token_losses) {
  check_i32_row("targets", batch.targets, batch.tokens.numel());
  return ops::linear_cross_entropy(impl_->run(batch, options, nullptr), impl_->head, batch.targets, scale, token_losses);
}

Variable Transformer::hidden(const TokenBatch& batch, const ForwardOptions& options, KvCache* cache) {
  if (!cache) return impl_->run(batch, options, nullptr);
  const NoGrad no_grad;
  MOBA_CHECK(batch.sequences.batch() == 1, "KV cache: a batch must be one sequence, got {}", batch.sequences.batch());
  const int64_t begin = cache->length(), tokens = batch.tokens.numel();
  MOBA_CHECK(begin + tokens <= cache->capacity(), "KV cache: {} more tokens do not fit, {} of {} are in use", tokens, begin,
             cache->capacity());
  MOBA_CHECK(static_cast<int64_t>(batch.positions.item(0)) == begin, "KV cache: the batch must continue at position {}, got {}", begin,
             batch.positions.item(0));
  TokenBatch continued = batch;
  continued.sequences = one_sequence(tokens, begin + tokens);
  return impl_->run(continued, options, cache);
}

Tensor Transformer::logits(const Tensor& hidden_rows) {
  const Tensor& weight = impl_->head.value();
  MOBA_CHECK(hidden_rows.dim() == 2 && hidden_rows.size(1) == weight.size(1) && hidden_rows.dtype() == impl_->dtype,
             "logits: hidden rows must be {} [rows, {}], got {} {}", dtype_name(impl_->dtype), weight.size(1),
             dtype_name(hidden_rows.dtype()), to_string(hidden_rows.shape()));
  const DType out_dtype = impl_->dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor out = Tensor::empty({hidden_rows.size(0), weight.size(0)}, out_dtype, hidden_rows.device());
  kernels::MatmulArgs args;
  args.stream = hidden_rows.stream();
  args.m = hidden_rows.size(0);
  args.n = weight.size(0);
  args.k = weight.size(1);
  args.dtype = impl_->dtype;
  args.out_dtype = out_dtype;
  args.transpose_b = true;
  args.a = hidden_rows.raw();
  args.b = weight.raw();
  args.c = out.raw();
  kernels::matmul(args);
  return out.to(DType::f32);
}

void Transformer::refresh_compute_copies() {
  for (Parameter& p : impl_->parameters) {
    const Tensor& copy = p.value.value();
    if (copy.storage() != p.master.storage()) copy.copy_from(p.master);
  }
}

}  // namespace moba
