// The picture of moba-eval recall: for every setting, layers by heads, coloured by the share of attention mass kept.
#pragma once
#include <string>
#include <vector>

#include "src/moba/recall.h"

namespace moba::eval {

struct RecallTable {
  std::vector<RecallSetting> settings;
  std::vector<std::vector<std::vector<MassKept>>> heads;  // [setting][layer][head]
  std::vector<MassKept> totals;                           // [setting]
  std::vector<std::vector<double>> layer_share;           // [setting][layer]
  std::vector<int64_t> last_by_mean, last_by_layer;       // [setting] layers to keep full
};

std::string recall_picture(const RecallTable& table, int64_t sequence_length);  // an SVG file

}  // namespace moba::eval
