// The training samples of a run, in order, from any point on; reading runs ahead in the background.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/data/sampler.h"
#include "src/train/recipe.h"
#include "src/train/run_plan.h"

namespace moba {

class DataStream {
 public:
  explicit DataStream(const Recipe& recipe);  // opens every stage's files; Error if one is missing, damaged or too short
  // Samples [share.begin, share.begin + share.count) of the next share.period samples at this point of the run. Points must follow
  // each other by share.period but for a change of stage; the share may change only there.
  std::vector<Sample> next(const Progress& progress, const SampleShare& share);

 private:
  std::vector<std::shared_ptr<const Sampler>> stages_;
  std::unique_ptr<Loader> loader_;
  int64_t loader_stage_ = -1;
};

// Error if an instruction run is to count responses only, and the file does not say which tokens are theirs.
void check_loss_mask(const Recipe& recipe, const TokenDataset& data);

SamplerConfig stage_sampler(const Recipe& recipe, size_t stage);

// Content of every data file and of the tokenizer: {"train": [["<hash>", weight], ...], "validation": [...], "tokenizer": "<sha256>"}.
nlohmann::ordered_json data_fingerprint(const Recipe& recipe);

}  // namespace moba
