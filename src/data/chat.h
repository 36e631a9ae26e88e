// Supervised examples: ChatML (<|im_start|>role \n content <|im_end|> \n for every message), or Llama 3's markup where the vocabulary
// has its markers (<|start_header_id|>role<|end_header_id|> \n\n content <|eot_id|>); then the tokenizer's end token.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "src/data/tokenizer.h"

namespace moba {

struct ChatMessage {
  std::string role;  // system, user, assistant or tool
  std::string content;
};

struct EncodedDocument {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> loss_mask;  // empty, or one per token: counts as a target
};

// {"messages": [{"role", "content"}, ...]} or {"prompt", "response"}. Error says what is wrong with the line.
std::vector<ChatMessage> parse_chat(std::string_view json_line);

// Only the contents of assistant turns and their end markers count. A tokenizer that lacks the markers as special tokens gets
// them as plain text.
EncodedDocument encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages);

}  // namespace moba
