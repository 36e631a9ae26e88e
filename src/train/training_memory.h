// Predicted peak memory of the training process, from what each part of a step keeps alive.
#pragma once
#include "src/train/recipe.h"
#include "src/train/run_plan.h"

namespace moba {

int64_t predicted_training_memory(const Recipe& recipe, DType dtype, const StepPlan& plan);  // bytes

}  // namespace moba
