// tiktoken's rank files: a base64 token and its rank (= id) per line.
#pragma once
#include <string>
#include <string_view>

#include "src/data/bpe_model.h"

namespace moba {

// `pattern` is gpt2, cl100k, o200k or llama3. A file with as many ranks as that vocabulary has gets its special tokens and ids;
// any other gets <|endoftext|>, <|im_start|> and <|im_end|> behind the last rank.
BpeModel read_tiktoken(std::string_view contents, const std::string& pattern);

}  // namespace moba
