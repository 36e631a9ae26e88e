// Byte and byte-level BPE tokenizers. encode/decode round-trips any bytes. Text is never parsed for special tokens.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moba {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual void encode(std::string_view text, std::vector<int32_t>& out) const = 0;  // appends; no EOS
  // Ids out of range are an Error; an id below vocab_size() that no token has (large vocabularies have gaps) stands for no text.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t eos_token_id() const = 0;
  virtual int32_t bos_token_id() const { return -1; }  // -1 = none
  virtual std::string json() const = 0;                // bytes of tokenizer.json (Hugging Face layout)
  // Whether a text may be encoded in parts that end where find_safe_cut (pretokenizer.h) says, with the same ids.
  virtual bool may_cut_lines() const { return false; }
  // id of a special token such as "<|im_start|>", or -1
  virtual int32_t special_token_id(std::string_view token) const = 0;
};

std::unique_ptr<Tokenizer> make_byte_tokenizer();
// "byte", a tokenizer.json, or a .tiktoken rank file with a pattern name (gpt2, cl100k, o200k, llama3).
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& what, const std::string& pattern = {});
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json);

// The ids below vocab_size() that no token has.
std::vector<int32_t> unused_ids(const Tokenizer& tokenizer);

}  // namespace moba
