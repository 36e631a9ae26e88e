// What every command of moba-eval starts from: a checkpoint opened with the attention that the command line asks for.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/data/tokenizer.h"
#include "src/interop/hf_config.h"
#include "src/layers/transformer.h"

namespace moba::eval {

struct ModelOptions {
  std::string checkpoint;                    // run folder, step folder or Hugging Face directory
  std::optional<std::string> attention;      // --attn
  std::optional<std::string> hybrid_layers;  // --hybrid-layers
  std::string precision = "fp32";            // of the compute copies: fp32 or bf16
};

struct LoadedModel {
  std::string dir;  // the folder that holds config.json
  ModelDescription description;
  std::vector<LayerAttention> layers;
  std::unique_ptr<Transformer> transformer;

  ForwardOptions forward() const;
  std::vector<std::string> files() const;  // of the checkpoint
  // Error when the dataset's ids are those of another tokenizer than the checkpoint's; one without tokenizer.json takes any.
  void check_tokenizer_of(const std::string& dataset) const;
  std::unique_ptr<Tokenizer> tokenizer() const;  // Error if the checkpoint has none
};

LoadedModel open_model(const ModelOptions& options);

}  // namespace moba::eval
