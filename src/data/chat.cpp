#include "src/data/chat.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/common/check.h"

namespace moba {
namespace {

std::string text_field(const nlohmann::json& object, const char* key) {
  MOBA_CHECK(object.is_object() && object.contains(key), "\"{}\" is missing", key);
  MOBA_CHECK(object.at(key).is_string(), "\"{}\" must be a string", key);
  return object.at(key).get<std::string>();
}

void append_marker(const Tokenizer& tokenizer, std::string_view marker, std::vector<int32_t>& out) {
  const int32_t id = tokenizer.special_token_id(marker);
  if (id >= 0)
    out.push_back(id);
  else
    tokenizer.encode(marker, out);
}

// A message is open, role, close, content, end, after; the content and the end marker of an assistant's count.
struct Markup {
  std::string_view open, close, end, after;
  bool tool_is_ipython = false;
};

// Llama 3's own where the vocabulary has its markers, else ChatML.
Markup markup_of(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view marker) { return tokenizer.special_token_id(marker) >= 0; };
  if (has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>"))
    return {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "", true};
  return {"<|im_start|>", "", "<|im_end|>", "\n"};
}

}  // namespace

std::vector<ChatMessage> parse_chat(std::string_view json_line) {
  const auto line = nlohmann::json::parse(json_line);
  MOBA_CHECK(line.is_object(), "an example must be a JSON object");
  std::vector<ChatMessage> messages;
  if (!line.contains("messages")) {
    MOBA_CHECK(line.contains("prompt"), "neither \"messages\" nor \"prompt\" and \"response\" found");
    messages = {{"user", text_field(line, "prompt")}, {"assistant", text_field(line, "response")}};
    return messages;
  }
  MOBA_CHECK(line.at("messages").is_array(), "\"messages\" must be a list");
  for (const auto& message : line.at("messages")) messages.push_back({text_field(message, "role"), text_field(message, "content")});
  for (const auto& m : messages) {
    MOBA_CHECK(m.role == "system" || m.role == "user" || m.role == "assistant" || m.role == "tool",
               "unknown role \"{}\" (system, user, assistant or tool)", m.role);
  }
  MOBA_CHECK(std::ranges::any_of(messages, [](const auto& m) { return m.role == "assistant"; }),
             "no assistant turn, so nothing to learn from");
  return messages;
}

EncodedDocument encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages) {
  const Markup markup = markup_of(tokenizer);
  EncodedDocument document;
  const auto mark = [&](bool counts) { document.loss_mask.resize(document.tokens.size(), counts); };
  if (tokenizer.bos_token_id() >= 0) document.tokens.push_back(tokenizer.bos_token_id());
  for (const auto& message : messages) {
    const std::string role = markup.tool_is_ipython && message.role == "tool" ? "ipython" : message.role;
    append_marker(tokenizer, markup.open, document.tokens);
    if (markup.close.empty()) {
      tokenizer.encode(role + "\n", document.tokens);
    } else {
      tokenizer.encode(role, document.tokens);
      append_marker(tokenizer, markup.close, document.tokens);
      tokenizer.encode("\n\n", document.tokens);
    }
    mark(false);
    tokenizer.encode(message.content, document.tokens);
    append_marker(tokenizer, markup.end, document.tokens);
    mark(message.role == "assistant");
    tokenizer.encode(markup.after, document.tokens);
  }
  document.tokens.push_back(tokenizer.eos_token_id());
  mark(false);
  return document;
}

}  // namespace moba
