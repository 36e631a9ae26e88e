// moba-eval dump: one forward (and backward) pass laid open in HDF5, so that anybody can check it from Python.
//
//   /tokens [T] i32, /targets [T] i32 (-1: not counted), /positions [T], /cu_seqlens [B+1]
//   /logits [T, V] f32 · /token_loss [T] f64 (nats) · /loss [1] f64 (mean over counted targets)
//   --selected:  /selected/<layer> [T, H or Hk, slots] i32 for every MoBA layer: own block first, then by descending score, -1 padded
//   --gradients: /gradients/<parameter> of /loss, in the parameter's shape
#include <algorithm>

#include "src/autograd/variable.h"
#include "src/data/output_file.h"
#include "src/train/batch.h"
#include "tools/moba_eval/commands.h"
#include "tools/moba_eval/hdf5_output.h"

namespace moba::eval {
namespace {

std::vector<Sample> first_samples(const LoadedModel& model, const DumpOptions& o) {
  int64_t length = o.sequence_length;
  if (length == 0) length = std::min(model.description.model.max_position_embeddings, TokenDataset(o.tokens).info().tokens - 1);
  MOBA_CHECK(length >= 1, "--sequence-length must be >= 1, got {}", length);
  SamplerConfig sampling;
  sampling.sources = {{o.tokens, 1}};
  sampling.sequence_length = length;
  sampling.document_mask = o.document_mask;
  sampling.shuffle = false;
  const Sampler sampler(sampling);
  MOBA_CHECK(o.sequences >= 1 && o.sequences <= sampler.samples_per_epoch(), "--sequences must be in 1 .. {} (what {} holds), got {}",
             sampler.samples_per_epoch(), o.tokens, o.sequences);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < o.sequences; ++i) samples.push_back(sampler.sample(i));
  return samples;
}

}  // namespace

void check_vocabulary(const TokenBatch& batch, int64_t vocab_size) {
  for (int64_t i = 0; i < batch.tokens.numel(); ++i)
    MOBA_CHECK(batch.tokens.data<int32_t>()[i] < vocab_size, "token {} at {} is outside the model's vocabulary of {}",
               batch.tokens.data<int32_t>()[i], i, vocab_size);
}

void run_dump(const ModelOptions& model_options, const DumpOptions& options) {
  LoadedModel model = open_model(model_options);
  check_output_file(options.output, model.files());
  check_output_file(options.output, {options.tokens});
  model.check_tokenizer_of(options.tokens);
  Transformer& transformer = *model.transformer;
  const std::vector<Sample> samples = first_samples(model, options);
  const TokenBatch batch = pack_batch(samples);
  check_vocabulary(batch, model.description.model.vocab_size);
  const int64_t counted = counted_targets(samples);
  MOBA_CHECK(counted > 0, "{}: no target counts in the first {} sequences", options.tokens, options.sequences);

  Hdf5Output out(options.output);
  out.attribute("sequence_length", static_cast<int64_t>(samples.front().tokens.size()));
  out.write("tokens", batch.tokens);
  out.write("targets", batch.targets);
  out.write("positions", batch.positions);
  out.write("cu_seqlens", batch.sequences.cu_seqlens_q);

  ForwardOptions forward = model.forward();
  {
    const NoGrad no_grad;
    if (options.selected)
      forward.on_selection = [&](int64_t layer, const Tensor& selected) { out.write(fmt::format("selected/{}", layer), selected); };
    const Variable hidden = transformer.hidden(batch, forward);
    forward.on_selection = {};
    out.write("logits", transformer.logits(hidden.value()));
  }
  const auto write_loss = [&] {
    Tensor token_losses;
    const Variable loss = transformer.loss(batch, forward, 1.0 / static_cast<double>(counted), &token_losses);
    out.write("loss", loss.value());
    out.write("token_loss", token_losses);
    fmt::print("loss {:.6f} over {} targets in {} sequences\n", loss.value().item(), counted, batch.sequences.batch());
    return loss;
  };
  if (options.gradients) {
    backward(write_loss());
    for (const Parameter& p : transformer.parameters()) out.write("gradients/" + p.name, p.value.grad_buffer());
  } else {
    const NoGrad no_grad;
    write_loss();
  }
  out.finish();
}

}  // namespace moba::eval
