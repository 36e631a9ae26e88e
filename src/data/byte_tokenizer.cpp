// ids 0-255 are the bytes, 256 closes a document.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kernels/common/check.h"
#include "src/data/byte_level.h"
#include "src/data/tokenizer.h"

namespace moba {
namespace {

constexpr int32_t kEndOfText = 256;

// As a BPE without merges, so that other programs read it too.
std::string make_json() {
  using nlohmann::ordered_json;
  ordered_json vocab = ordered_json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_level_encode(std::string(1, static_cast<char>(byte)))] = byte;
  const ordered_json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const ordered_json end_of_text = {{"id", kEndOfText}, {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false},
                                    {"rstrip", false},  {"normalized", false},        {"special", true}};
  ordered_json model = {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", false},
                        {"vocab", vocab},
                        {"merges", ordered_json::array()}};
  const ordered_json root = {{"version", "1.0"},          {"truncation", nullptr},
                             {"padding", nullptr},        {"added_tokens", ordered_json::array({end_of_text})},
                             {"normalizer", nullptr},     {"pre_tokenizer", byte_level},
                             {"post_processor", nullptr}, {"decoder", byte_level},
                             {"model", std::move(model)}};
  return root.dump(2) + "\n";
}

class ByteTokenizer final : public Tokenizer {
 public:
  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    out.reserve(out.size() + text.size());
    for (const char byte : text) out.push_back(static_cast<uint8_t>(byte));
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const int32_t id : ids) {
      MOBA_CHECK(id >= 0 && id <= kEndOfText, "token id {} is outside the byte tokenizer's vocabulary of {}", id, kEndOfText + 1);
      if (id == kEndOfText)
        text += "<|endoftext|>";
      else
        text += static_cast<char>(id);
    }
    return text;
  }
  int32_t vocab_size() const override { return kEndOfText + 1; }
  int32_t eos_token_id() const override { return kEndOfText; }
  std::string json() const override {
    static const std::string text = make_json();
    return text;
  }
  bool may_cut_lines() const override { return true; }
  int32_t special_token_id(std::string_view token) const override { return token == "<|endoftext|>" ? kEndOfText : -1; }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace moba
