// Cuts text into the pieces inside which BPE merges. Patterns are PCRE2 regular expressions, applied one after another, each to
// the pieces of the one before; what a pattern does not match is a piece too, so no byte is ever lost.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moba {

// The split pattern of "gpt2", "cl100k", "o200k" or "llama3"; Error names the choices.
std::string named_pattern(const std::string& name);

// Whether a pattern is one of them.
bool is_named_pattern(const std::string& pattern);

// The first place at or after `from` where a text may be cut in two so that the named patterns split both parts as they split the
// whole: behind a line end between a graphic ASCII character and an ASCII letter or digit; npos if there is none. Why nothing
// changes: no piece of these patterns reaches from before a line end to a letter or digit behind it, so a piece ends at the cut, and
// what follows is matched from there without a look back. Before it, the only look ahead is in \s+(?!\S): the line end is a piece of
// its own by it at the end of a text and by the next alternative before a letter, or belongs to the punctuation before it.
size_t find_safe_cut(std::string_view text, size_t from);

class PreTokenizer {
 public:
  // Error when a pattern does not compile or would mean something else to PCRE2 than to its author: set operations and nested sets
  // in brackets, \h, \v, \w, \b, ^, $, the option m, and {n,m}+.
  explicit PreTokenizer(const std::vector<std::string>& patterns);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  // Calls take(piece) for the pieces in order. Bytes that are not UTF-8 become pieces of their own.
  template <class Take>
  void split(std::string_view text, Take&& take) const {
    split_into(text, &take, [](void* context, std::string_view piece) { (*static_cast<std::remove_reference_t<Take>*>(context))(piece); });
  }

 private:
  struct Regex;
  using TakeFn = void (*)(void* context, std::string_view piece);
  void split_into(std::string_view text, void* context, TakeFn take) const;
  void split_valid(size_t stage, std::string_view text, void* context, TakeFn take) const;

  std::vector<std::unique_ptr<Regex>> stages_;
};

// Length of the longest prefix that is well-formed UTF-8.
size_t valid_utf8_prefix(std::string_view text);

}  // namespace moba
