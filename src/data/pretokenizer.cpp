#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/data/pretokenizer.h"

#include <pcre2.h>

#include <algorithm>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The end of a quantifier {n}, {n,} or {n,m} that begins at `at`, or `at` when there is none.
size_t quantifier_end(std::string_view pattern, size_t at) {
  const size_t end = pattern.find_first_not_of("0123456789,", at + 1);
  return end != std::string_view::npos && end > at + 1 && pattern[end] == '}' ? end + 1 : at;
}

// Refuses what the engines of other tokenizers (Oniguruma, Rust's regex) read differently, as PCRE2 gives no error for it.
void refuse_misread(const std::string& pattern) {
  const auto refuse = [&](const char* what) {
    throw Error(fmt::format("the split pattern \"{}\" uses {}, which PCRE2 reads in another way than the engine it was written for",
                            pattern, what));
  };
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i], next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\') {
      if (next == 'h' || next == 'H' || next == 'v' || next == 'V') refuse("\\h or \\v");
      if (next == 'w' || next == 'W') refuse("\\w (are combining marks letters?)");
      if (!in_class && (next == 'b' || next == 'B')) refuse("\\b (are combining marks letters?)");
      ++i;
      if ((next == 'p' || next == 'P' || next == 'x') && i + 1 < pattern.size() && pattern[i + 1] == '{')
        i = std::min(pattern.find('}', i), pattern.size());
    } else if (!in_class && (c == '^' || c == '$')) {
      refuse("^ or $ (of the text or of a line?)");
    } else if (!in_class && pattern.compare(i, 2, "(?") == 0) {
      // Options stand between (? and the next : or ); m lets . match line ends here and moves ^ and $ there.
      const size_t end = pattern.find_first_not_of("imsxn-", i + 2);
      const bool options = end != std::string::npos && (pattern[end] == ':' || pattern[end] == ')');
      if (options && pattern.substr(i, end - i).find('m') != std::string::npos) refuse("the option m");
    } else if (!in_class && c == '{' && quantifier_end(pattern, i) > i) {
      const size_t end = quantifier_end(pattern, i);
      if (next == ',') refuse("a quantifier without a lower bound");
      if (end < pattern.size() && pattern[end] == '+') refuse("a + behind a quantifier in braces");
      const bool exact = pattern.find(',', i) >= end;
      if (exact && end < pattern.size() && pattern[end] == '?') refuse("a ? behind an exact quantifier in braces");
      i = end - 1;
    } else if (!in_class && c == '[') {
      in_class = true;
      if (next == '^') ++i;
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') ++i;  // a first ] is a literal
    } else if (in_class && c == ']') {
      in_class = false;
    } else if (in_class && c == '[') {
      refuse("a set inside a set");
    } else if (in_class && c == next && (c == '&' || c == '-' || c == '~')) {
      refuse("a set operation (&&, -- or ~~)");
    }
  }
}

// \s as Unicode's White_Space: PCRE2's own also takes U+180E, which stopped being a space in Unicode 6.3.
std::string with_unicode_spaces(const std::string& pattern) {
  constexpr const char* kSpaces = R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i], next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\' && (next == 's' || (next == 'S' && !in_class))) {
      out += in_class ? std::string(kSpaces) : fmt::format("[{}{}]", next == 'S' ? "^" : "", kSpaces);
      ++i;
    } else if (c == '\\') {
      out.append({c, next});
      ++i;
    } else {
      if (c == '[') {
        in_class = true;
        out += c;
        if (next == '^') out += pattern[++i];
        if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];  // a first ] is a literal
        continue;
      }
      if (c == ']') in_class = false;
      out += c;
    }
  }
  return out;
}

// Scratch of one thread's matching.
struct MatchSpace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);
  MatchSpace() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~MatchSpace() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchSpace(const MatchSpace&) = delete;
  MatchSpace& operator=(const MatchSpace&) = delete;
};

MatchSpace& match_space() {
  static thread_local MatchSpace space;
  return space;
}

size_t character_bytes(std::string_view text, size_t at) {  // valid UTF-8
  size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - at;
}

}  // namespace

struct PreTokenizer::Regex {
  pcre2_code* code = nullptr;
  bool jit = false;

  explicit Regex(const std::string& pattern) {
    refuse_misread(pattern);
    pcre2_code_free(compile(pattern));  // errors name places of what was written
    code = compile(with_unicode_spaces(pattern));
    jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Regex() { pcre2_code_free(code); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  static pcre2_code* compile(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == nullptr) {
      char message[256] = "";
      pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
      throw Error(fmt::format("the split pattern \"{}\" is wrong at character {}: {}", pattern, offset, message));
    }
    return code;
  }

  // The next match at or after `from`; false when there is none.
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
    MatchSpace& space = match_space();
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const int result = jit ? pcre2_jit_match(code, subject, text.size(), from, 0, space.data, space.context)
                           : pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, space.data, space.context);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    MOBA_CHECK(result >= 0, "the split pattern needs too much memory or time on this text (PCRE2 error {})", result);
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(space.data);
    begin = offsets[0];
    end = offsets[1];
    return true;
  }
};

std::string named_pattern(const std::string& name) {
  if (name == "gpt2") return kGpt2;
  if (name == "cl100k" || name == "llama3") return kCl100k;  // Llama 3 took over cl100k's
  if (name == "o200k") return kO200k;
  throw Error(fmt::format("unknown pattern \"{}\" (gpt2, cl100k, o200k or llama3)", name));
}

bool is_named_pattern(const std::string& pattern) { return pattern == kGpt2 || pattern == kCl100k || pattern == kO200k; }

size_t find_safe_cut(std::string_view text, size_t from) {
  const auto graphic = [](char c) { return c > ' ' && c < '\x7f'; };
  const auto alphanumeric = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  for (size_t end = text.find('\n', std::max<size_t>(from, 2) - 1); end != std::string_view::npos; end = text.find('\n', end + 1))
    if (end + 1 < text.size() && graphic(text[end - 1]) && alphanumeric(text[end + 1])) return end + 1;
  return std::string_view::npos;
}

PreTokenizer::PreTokenizer(const std::vector<std::string>& patterns) {
  for (const auto& pattern : patterns) stages_.push_back(std::make_unique<Regex>(pattern));
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;

void PreTokenizer::split_into(std::string_view text, void* context, TakeFn take) const {
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    if (valid > 0) split_valid(0, text.substr(0, valid), context, take);
    text.remove_prefix(valid);
    size_t invalid = 0;
    while (invalid < text.size() && valid_utf8_prefix(text.substr(invalid, 4)) == 0) ++invalid;
    if (invalid > 0) take(context, text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
}

void PreTokenizer::split_valid(size_t stage, std::string_view text, void* context, TakeFn take) const {
  if (stage == stages_.size()) {
    take(context, text);
    return;
  }
  size_t at = 0, search = 0, begin = 0, end = 0;  // text before `at` is taken; the next match is sought from `search`
  while (search < text.size() && stages_[stage]->find(text, search, begin, end)) {
    if (begin == end) {  // an empty match cuts nothing
      if (begin >= text.size()) break;
      search = begin + character_bytes(text, begin);
      continue;
    }
    if (begin > at) split_valid(stage + 1, text.substr(at, begin - at), context, take);
    split_valid(stage + 1, text.substr(begin, end - begin), context, take);
    at = search = end;
  }
  if (at < text.size()) split_valid(stage + 1, text.substr(at), context, take);
}

}  // namespace moba
