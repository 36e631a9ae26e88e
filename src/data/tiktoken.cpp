#include "src/data/tiktoken.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>

#include "kernels/common/check.h"
#include "src/data/pretokenizer.h"

namespace moba {
namespace {

bool decode_base64(std::string_view text, std::string& bytes) {
  static const auto values = [] {
    std::array<int8_t, 256> table;
    table.fill(-1);
    const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < alphabet.size(); ++i) table[static_cast<uint8_t>(alphabet[i])] = static_cast<int8_t>(i);
    return table;
  }();
  bytes.clear();
  while (text.ends_with('=')) text.remove_suffix(1);
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const int value = values[static_cast<uint8_t>(c)];
    if (value < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes += static_cast<char>(bits >> held & 0xFF);
    }
  }
  return !bytes.empty();
}

std::vector<std::string> read_ranks(std::string_view contents) {
  std::vector<std::string> tokens;
  std::string bytes;
  for (int64_t line_number = 1; !contents.empty(); ++line_number) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    std::string_view line = contents.substr(0, end);
    contents.remove_prefix(std::min(end + 1, contents.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    size_t rank = 0;
    const char* last = line.data() + line.size();
    const bool ok = space != std::string_view::npos && decode_base64(line.substr(0, space), bytes) &&
                    std::from_chars(line.data() + space + 1, last, rank).ptr == last && rank < (1u << 24);
    if (!ok) throw Error(fmt::format("line {} is not \"base64 rank\"", line_number), ExitCode::corrupt_input);
    if (rank >= tokens.size()) tokens.resize(rank + 1);
    if (!tokens[rank].empty()) throw Error(fmt::format("line {}: rank {} occurs twice", line_number, rank), ExitCode::corrupt_input);
    tokens[rank] = bytes;
  }
  return tokens;
}

// A token's merges are all its cuts into two tokens, those of lower ranks first; tokens come in rank order.
void derive_merges(BpeModel& model) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (!model.tokens[id].empty()) ids.emplace(model.tokens[id], static_cast<int32_t>(id));
  }
  std::vector<BpeModel::Merge> cuts;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    const std::string_view token = model.tokens[id];
    cuts.clear();
    for (size_t at = 1; at < token.size(); ++at) {
      const auto left = ids.find(token.substr(0, at)), right = ids.find(token.substr(at));
      if (left != ids.end() && right != ids.end()) cuts.push_back({left->second, right->second, static_cast<int32_t>(id)});
    }
    std::ranges::sort(cuts, {}, [](const auto& m) { return std::pair(m.left, m.right); });
    model.merges.insert(model.merges.end(), cuts.begin(), cuts.end());
  }
}

std::vector<BpeModel::Special> specials_of(const std::string& pattern, size_t ranks) {
  const auto at = [](int32_t id, const std::string& content) { return BpeModel::Special{content, id}; };
  if (pattern == "gpt2" && ranks == 50256) return {at(50256, "<|endoftext|>")};
  if (pattern == "cl100k" && ranks == 100256) {
    return {at(100257, "<|endoftext|>"), at(100258, "<|fim_prefix|>"), at(100259, "<|fim_middle|>"), at(100260, "<|fim_suffix|>"),
            at(100276, "<|endofprompt|>")};
  }
  if (pattern == "o200k" && ranks == 199998) return {at(199999, "<|endoftext|>"), at(200018, "<|endofprompt|>")};
  const auto first = static_cast<int32_t>(ranks);
  if (pattern == "llama3" && ranks == 128000) {
    std::vector<std::string> names{"<|begin_of_text|>",
                                   "<|end_of_text|>",
                                   "<|reserved_special_token_0|>",
                                   "<|reserved_special_token_1|>",
                                   "<|finetune_right_pad_id|>",
                                   "<|step_id|>",
                                   "<|start_header_id|>",
                                   "<|end_header_id|>",
                                   "<|eom_id|>",
                                   "<|eot_id|>",
                                   "<|python_tag|>"};
    for (int reserved = 2; names.size() < 256; ++reserved) names.push_back(fmt::format("<|reserved_special_token_{}|>", reserved));
    std::vector<BpeModel::Special> specials;
    for (size_t i = 0; i < names.size(); ++i) specials.push_back(at(first + static_cast<int32_t>(i), names[i]));
    return specials;
  }
  return {at(first, "<|endoftext|>"), at(first + 1, "<|im_start|>"), at(first + 2, "<|im_end|>")};
}

}  // namespace

BpeModel read_tiktoken(std::string_view contents, const std::string& pattern) {
  BpeModel model;
  model.patterns = {named_pattern(pattern)};
  model.ignore_merges = true;  // tiktoken takes a piece that is a token whole
  model.tokens = read_ranks(contents);
  derive_merges(model);
  model.specials = specials_of(pattern, model.tokens.size());
  for (const auto& s : model.specials) {
    model.tokens.resize(std::max(model.tokens.size(), static_cast<size_t>(s.id) + 1));
    model.tokens[s.id] = s.content;
    if (s.content == "<|endoftext|>" || s.content == "<|end_of_text|>") model.eos = s.id;
    if (s.content == "<|begin_of_text|>") model.bos = s.id;
  }
  return model;
}

}  // namespace moba
