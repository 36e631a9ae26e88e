// Choosing the next token from a row of logits.
#pragma once
#include <cstdint>
#include <span>

namespace moba {

// Index of the largest logit; the smallest index wins a tie. NaN is never chosen; an Error if nothing else is there.
int32_t greedy_token(std::span<const float> logits);

// Draws from softmax(logits / temperature), temperature > 0, cut to the smallest set of most likely tokens whose probability
// reaches top_p (ties: smaller index first). uniform in [0, 1) decides.
int32_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform);

}  // namespace moba
