// The baseline that every language model has to beat: each token by its own frequency, no context.
#pragma once
#include "src/data/token_dataset.h"

namespace moba {

// Mean loss in nats per token on `test` of a unigram model with add-one smoothing fitted on `train`. Both must have the same
// vocabulary and tokenizer (Error otherwise).
double unigram_loss(const TokenDataset& train, const TokenDataset& test);

}  // namespace moba
