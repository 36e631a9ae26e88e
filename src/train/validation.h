// The evaluations of a run, as its recipe sets them.
#pragma once
#include "src/train/evaluate.h"
#include "src/train/recipe.h"

namespace moba {

EvaluationConfig evaluation_config(const Recipe& recipe, int64_t sequence_length);

// Reads what the evaluations of every stage will read, so that a run does not lose steps to a file that is too short, damaged, or
// without the loss mask that its task needs. Nothing if the run evaluates nothing.
void check_validation(const Recipe& recipe);

}  // namespace moba
