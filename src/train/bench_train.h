// moba-bench train: whole optimizer steps of a recipe, timed.
#pragma once
#include <nlohmann/json.hpp>

#include "src/train/recipe.h"

namespace moba {

// Runs one step to warm up and `steps` timed ones, on the recipe's data or, where that is missing, on random tokens. Writes nothing.
// Keys: config, tokens_per_sec, step_ms (median), mfu, peak_gflops, peak_rss_bytes, share {data, forward, backward, update}.
nlohmann::ordered_json bench_train(Recipe recipe, int64_t steps);

}  // namespace moba
