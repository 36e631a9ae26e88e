// Checks between keys of a recipe, after each key alone was found right.
#pragma once
#include <string>
#include <vector>

#include "src/train/recipe.h"

namespace moba {

// Appends "where: key: what is wrong" for every contradiction. `written`: the tree without defaults, for places.
void check_recipe(const Recipe& recipe, const YamlNode& written, const RecipeOptions& options, std::vector<std::string>& errors);

}  // namespace moba
