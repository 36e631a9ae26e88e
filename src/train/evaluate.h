// Evaluation: loss over the validation set packed as in training, loss by position and trailing loss, and what the router chose.
// By position and trailing: over full windows of documents; for instruction data, whose examples fill no window, over the packed
// rows, by the position within the example and over each example's last counted targets.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/data/sampler.h"
#include "src/distributed/communicator.h"
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
  bool by_example = false;         // instruction data: position and trailing within examples; needs best_fit and document_mask
  int64_t max_tokens = 0;          // of the packed pass, and again of the windows; 0: all
  int64_t trailing = 0;            // last tokens of a window, or last counted targets of an example; 0: none
  int64_t bins = 0;                // parts of sequence_length; 0: none
  int64_t tokens_per_pass = 8192;  // sequences are put together up to this many tokens
  Communicator* ranks = nullptr;   // null: this process alone; else samples are spread over them, and `stop` must be alike on all
};

struct EvaluationResult {
  double loss = 0;  // nats per counted target; NaN without any
  double bits_per_byte = 0;
  int64_t targets = 0;
  int64_t windows = 0;                  // full windows of documents, or with by_example the examples that have a counted target
  std::optional<double> trailing_loss;  // none without windows
  std::vector<double> position_loss;    // [bins]; empty without windows, NaN where a bin has no counted target
  RoutingStatistics routing;            // of the packed pass; empty without MoBA layers
};

// The same on every rank. Nothing if `stop` became true in between. `progress` receives the share done; both may be empty.
std::optional<EvaluationResult> evaluate(Transformer& model, const ForwardOptions& options, const EvaluationConfig& config,
                                         const std::function<bool()>& stop = {}, const std::function<void(double)>& progress = {});

// The keys of an evaluation line of metrics.jsonl, without "step".
nlohmann::ordered_json evaluation_json(const EvaluationResult& result);

}  // namespace moba
