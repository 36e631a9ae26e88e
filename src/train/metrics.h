// metrics.jsonl, one object per line, and the same values as TensorBoard scalars.
#pragma once
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "src/train/tensorboard.h"

namespace moba {

// Whether FOLDER/metrics.jsonl has the line of the evaluation after this step.
bool has_evaluation(const std::string& folder, int64_t step);

class MetricsLog {
 public:
  // Keeps the lines of FOLDER/metrics.jsonl up to `keep_step` (0: none), and starts a new event file unless tensorboard is false.
  // evaluation_due: the evaluation after keep_step will run again, so a line that it left before is dropped.
  MetricsLog(const std::string& folder, int64_t keep_step, bool tensorboard, bool evaluation_due = false);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  void write(const nlohmann::ordered_json& line);  // has "step"; values that are not finite are written as null
  void sync();                                     // lines so far are on disk: before a checkpoint is published that counts on them

 private:
  std::FILE* file_ = nullptr;
  std::string path_;
  std::unique_ptr<TensorBoardWriter> tensorboard_;
};

}  // namespace moba
