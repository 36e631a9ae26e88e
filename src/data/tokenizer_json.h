// Hugging Face's tokenizer.json for byte-level BPE. Text is never parsed for added tokens, so their matching options do not
// matter; every other feature that would change ids or bytes and is not supported is an Error.
#pragma once
#include <string>
#include <string_view>

#include "src/data/bpe_model.h"

namespace moba {

BpeModel read_tokenizer_json(std::string_view json);
std::string write_tokenizer_json(const BpeModel& model);

}  // namespace moba
