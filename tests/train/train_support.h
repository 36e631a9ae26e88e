// A small byte dataset and a small recipe in a folder of their own.
#pragma once
#include <fmt/format.h>

#include <string>

#include "src/data/token_dataset.h"
#include "src/data/tokenizer.h"
#include "src/train/recipe.h"
#include "tests/interop/scratch_folder.h"

namespace moba::test {

// Sentences that a tiny model learns quickly: `documents` documents of about 1.3 KB.
inline void write_byte_dataset(const std::string& path, int documents, int first = 0) {
  const auto tokenizer = make_byte_tokenizer();
  TokenDatasetWriter writer(path, tokenizer->vocab_size(), tokenizer->eos_token_id(), -1, tokenizer->json(), false);
  for (int d = 0; d < documents; ++d) {
    std::string text;
    for (int line = 0; line < 20; ++line)
      text += fmt::format("The number {} follows {} in the row of numbers, as ever.\n", first + d + line + 1, first + d + line);
    std::vector<int32_t> tokens;
    tokenizer->encode(text, tokens);
    tokens.push_back(tokenizer->eos_token_id());
    writer.add_document(tokens);
  }
  writer.finish();
}

class TrainFolder {
 public:
  TrainFolder() {
    write_byte_dataset(path("train.h5"), 40);
    write_byte_dataset(path("validation.h5"), 6, 17);
    folder_.write("tiny.yaml", recipe_text());
  }
  std::string path(const std::string& name) const { return folder_.path(name); }
  void write(const std::string& name, const std::string& text) const { folder_.write(name, text); }

  // Two layers, 128 tokens a sequence, 20 steps of 1024 tokens.
  std::string recipe_text() const {
    return fmt::format(R"(run:
  name: tiny
  output_dir: {0}/runs
model:
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 2
  attention:
    moba_chunk_size: 16
    moba_topk: 3
data:
  train:
    - path: {0}/train.h5
  validation: {0}/validation.h5
train:
  sequence_length: 128
  global_batch_tokens: 1024
  micro_batch_size: 4
  max_steps: 20
  precision: fp32
optimizer:
  lr: 1e-2
lr_scheduler:
  warmup_steps: 2
eval:
  interval: 10
  max_tokens: 1024
  trailing: 16
  bins: 4
checkpoint:
  interval: 10
logging:
  interval: 5
)",
                       folder_.root());
  }

  Recipe recipe(std::vector<std::string> overrides = {}, std::optional<std::string> attention = {}) const {
    RecipeOptions options;
    options.overrides = std::move(overrides);
    options.attention = std::move(attention);
    Recipe out = read_recipe(path("tiny.yaml"), options);
    resolve_vocabulary(out);
    return out;
  }

 private:
  ScratchFolder folder_;
};

}  // namespace moba::test
