#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/data/pretokenizer.h"

#include <pcre2.h>

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

// Refuses what other regex engines read differently, as PCRE2 gives no error for it.
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
      ++i;
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
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == nullptr) {
      char message[256] = "";
      pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
      throw Error(fmt::format("the split pattern \"{}\" is wrong at character {}: {}", pattern, offset, message));
    }
    jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Regex() { pcre2_code_free(code); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

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
