#include "src/train/validation.h"

#include <set>

#include "src/train/data_stream.h"
#include "src/train/evaluation_data.h"

namespace moba {

EvaluationConfig evaluation_config(const Recipe& r, int64_t sequence_length) {
  EvaluationConfig config;
  config.files = r.validation;
  config.sequence_length = sequence_length;
  config.packing = r.packing;
  config.document_mask = r.document_mask;
  config.too_long = r.too_long;
  config.ignore_loss_mask = r.train_on_prompt;
  config.by_example = r.sft && r.packing == Packing::best_fit;
  config.max_tokens = r.eval_max_tokens;
  config.trailing = r.eval_trailing;
  config.bins = r.eval_bins;
  config.tokens_per_pass = r.micro_batch_size * sequence_length;
  return config;
}

void check_validation(const Recipe& recipe) {
  if (recipe.eval_interval == 0) return;
  for (const std::string& path : recipe.validation) check_loss_mask(recipe, TokenDataset(path));
  std::set<int64_t> lengths;
  for (const StageRecipe& stage : recipe.stages) lengths.insert(stage.sequence_length);
  for (const int64_t length : lengths) check_evaluation_data(evaluation_config(recipe, length));
}

}  // namespace moba
