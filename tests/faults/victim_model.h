// The small model of the save tests: weights and moments that only its step decides.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "src/train/checkpoint.h"

namespace moba::test {

struct VictimModel {
  explicit VictimModel(int64_t step) : transformer(description().model, DType::f32, static_cast<uint64_t>(step)) {
    std::vector<OptimizerParameter> parameters;
    for (Parameter& p : transformer.parameters()) parameters.push_back({p.name, p.value, p.master, p.matrix, p.decay});
    optimizer = make_optimizer({}, std::move(parameters));
    for (const Optimizer::State& s : optimizer->state()) s.value.fill(0.5 * static_cast<double>(step));
  }

  static ModelDescription description() {
    ModelDescription d;
    d.model.hidden_size = 32;
    d.model.intermediate_size = 64;
    d.model.num_hidden_layers = 2;
    d.model.num_attention_heads = 4;
    d.model.num_key_value_heads = 2;
    d.model.vocab_size = 50;
    d.model.max_position_embeddings = 64;
    d.attention.base.type = kernels::AttentionType::moba;
    return d;
  }

  std::string save(const std::string& run_dir, int64_t step, int keep_last) {
    return save_checkpoint(run_dir,
                           {.step = step,
                            .model = transformer,
                            .optimizer = optimizer.get(),
                            .trainer_state = {{"samples", 10 * step}},
                            .config = hf_config(description()),
                            .tokenizer_json = "{\"version\": \"1.0\"}"},
                           keep_last);
  }

  // All weights and moments as one string, to compare models with.
  std::string bytes() {
    std::string all;
    const auto add = [&](const Tensor& t) { all.append(static_cast<const char*>(t.raw()), static_cast<size_t>(t.nbytes())); };
    for (const Parameter& p : transformer.parameters()) add(p.master);
    for (const Optimizer::State& s : optimizer->state()) add(s.value);
    return all;
  }

  Transformer transformer;
  std::unique_ptr<Optimizer> optimizer;
};

}  // namespace moba::test
