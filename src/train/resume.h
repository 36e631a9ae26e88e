// Whether a run starts or goes on, and whether it may go on with what the recipe says now.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "src/train/recipe.h"

namespace moba {

// Whether there is a checkpoint to go on from, unless it turns out to be damaged.
bool may_resume(const Recipe& recipe, const std::string& option);

// The checkpoint folder to go on from, or none for a fresh start. option: "auto", "never" or a checkpoint's folder.
std::optional<std::string> checkpoint_to_resume(const Recipe& recipe, const std::string& option,
                                                const std::function<void(const std::string&)>& say);

// Whether `auto` would choose this checkpoint too. If not, the user went back behind later steps, or to another run.
bool is_newest_checkpoint(const Recipe& recipe, const std::string& checkpoint);

// Whether the evaluation that was due when the checkpoint was saved is in the run's metrics since.
bool is_evaluated(const Recipe& recipe, const std::string& checkpoint, int64_t step);

// trainer_state.json of a checkpoint, before any model exists.
nlohmann::json read_trainer_state(const std::string& checkpoint);

// Every key with its resolved value, and the options that stand above keys, as kept in trainer_state.json:
// {"model.hidden_size": "192", ..., "--attn": "full"}.
nlohmann::json recipe_settings(const Recipe& recipe);

// Error(usage) listing every change of model, data, seed, sequence length or precision; other changes are said. settings and data are
// the recipe's, compared with those of the checkpoint's trainer_state.json.
void check_resumable(const nlohmann::json& state, const Recipe& recipe, const nlohmann::json& settings, const nlohmann::json& data,
                     const std::string& checkpoint, const std::function<void(const std::string&)>& say);

}  // namespace moba
