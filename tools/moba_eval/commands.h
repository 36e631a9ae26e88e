// The commands of moba-eval; each prints its result.
#pragma once
#include <cstdint>
#include <string>

#include "tools/moba_eval/model.h"

namespace moba::eval {

struct LossOptions {
  std::string data;
  int64_t sequence_length = 0;  // 0: the model's max_position_embeddings
  int64_t trailing = 0, bins = 0;
  int64_t max_tokens = 0;
  std::string task;  // pretrain or sft; empty: sft if the data has a loss mask
  bool document_mask = false, routing = false, json = false;
};
void run_loss(const ModelOptions& model, const LossOptions& options);

struct GenerateCommand {
  std::string prompt, prompt_file;
  std::string decode = "full";
  int64_t max_new_tokens = 128;
  double temperature = 0, top_p = 1;
  uint64_t seed = 0;
};
void run_generate(const ModelOptions& model, const GenerateCommand& options);

struct DumpOptions {
  std::string tokens, output;
  int64_t sequence_length = 0;  // 0: the model's max_position_embeddings, at most the file's
  int64_t sequences = 1;
  bool document_mask = false, selected = false, gradients = false;
};
void run_dump(const ModelOptions& model, const DumpOptions& options);

struct RecallOptions {
  std::string data;
  std::vector<std::string> grid;  // "S,K"
  std::string gate = "mean";
  double keep = 0.95;           // share of attention mass that a last-n hybrid is to keep
  int64_t sequence_length = 0;  // 0: the model's max_position_embeddings
  int64_t sequences = 4;
  std::string svg;  // file for the picture; empty: none
  bool json = false;
};
void run_recall(const ModelOptions& model, const RecallOptions& options);

// Error naming the first token that the model does not know.
void check_vocabulary(const TokenBatch& batch, int64_t vocab_size);

struct ExportOptions {
  std::string output, dtype = "bf16";
};
void run_export(const ModelOptions& model, const ExportOptions& options);

}  // namespace moba::eval
