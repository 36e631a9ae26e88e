// What moba-eval recall found: attention mass kept, the hybrids that follow from it, and what the loss says of them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/moba/recall.h"

namespace moba::eval {

// Nats per token on the very sequences that were looked at.
struct RecallLosses {
  double moba = 0;                                 // MoBA in every layer looked at
  double hybrid_by_mean = 0, hybrid_by_layer = 0;  // the advised last layers full, the others MoBA
};

struct RecallTable {
  std::string checkpoint, data, gate;
  std::string attention;                                      // of the model whose keys and queries these are
  int64_t sequence_length = 0, sequences = 0, available = 0;  // the first `sequences` of `available`
  double keep = 0;
  std::vector<int64_t> layers;  // looked at; window layers read no blocks
  int64_t model_layers = 0;
  std::vector<RecallSetting> settings;
  std::vector<std::vector<std::vector<MassKept>>> heads;  // [setting][layer looked at][head]
  double loss = 0;                                        // with `attention`
  std::vector<RecallLosses> losses;                       // [setting]

  // By judge():
  std::vector<MassKept> totals;                      // [setting]
  std::vector<std::vector<double>> layer_share;      // [setting][layer looked at]
  std::vector<int64_t> last_by_mean, last_by_layer;  // [setting] how many of the layers looked at to keep full
};

void judge(RecallTable& table);
// The last n of the layers looked at: "none", "last2", "all"; their numbers where other layers lie between.
std::string last_text(const RecallTable& table, int64_t n);

std::string what_was_looked_at(const RecallTable& table);  // checkpoint, data, sequences, attention: lines
void print_table(const RecallTable& table);
nlohmann::ordered_json to_json(const RecallTable& table);
std::string recall_picture(const RecallTable& table);  // an SVG file

}  // namespace moba::eval
