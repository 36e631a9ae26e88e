// model.init_from: whether weights that fit in shape also mean the same here.
#pragma once
#include <functional>
#include <string>

#include "src/train/recipe.h"

namespace moba {

// Compares config.json and tokenizer.json of the weights' folder with the recipe and the tokenizer (SHA-256) of its data. Error listing
// what would make it another model under the same shapes. What a run may want to change (positions, attention, epsilon) is said, a
// line each. A folder without tokenizer.json is taken at its word.
void check_init_from(const Recipe& recipe, const std::string& dir, const std::string& data_tokenizer,
                     const std::function<void(const std::string&)>& say);

}  // namespace moba
