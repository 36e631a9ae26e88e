// Evaluation: loss over the validation set packed as in training, loss by position and trailing loss over full windows of
// documents, and what the router chose.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/data/sampler.h"
#include "src/layers/transformer.h"
#include "src/moba/statistics.h"

namespace moba {

struct EvaluationConfig {
  std::vector<std::string> files;
  int64_t sequence_length = 0;
  Packing packing = Packing::concat;
  bool document_mask = false;
  TooLong too_long = TooLong::drop;
  bool ignore_loss_mask = false;
  int64_t max_tokens = 0;          // of the packed pass, and again of the windows; 0: all
  int64_t trailing = 0;            // last tokens of a window; 0: none
  int64_t bins = 0;                // parts of a window; 0: none
  int64_t tokens_per_pass = 8192;  // sequences are put together up to this many tokens
};

struct EvaluationResult {
  double loss = 0;  // nats per counted target; NaN without any
  double bits_per_byte = 0;
  int64_t targets = 0;
  int64_t windows = 0;                  // full windows of documents
  std::optional<double> trailing_loss;  // none without full windows
  std::vector<double> position_loss;    // [bins]; empty without full windows
  RoutingStatistics routing;            // of the packed pass; empty without MoBA layers
};

// Nothing if `stop` became true in between. `progress` receives the share done; both may be empty.
std::optional<EvaluationResult> evaluate(Transformer& model, const ForwardOptions& options, const EvaluationConfig& config,
                                         const std::function<bool()>& stop = {}, const std::function<void(double)>& progress = {});

// The keys of an evaluation line of metrics.jsonl, without "step".
nlohmann::ordered_json evaluation_json(const EvaluationResult& result);

}  // namespace moba
