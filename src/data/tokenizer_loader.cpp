#include "kernels/common/check.h"
#include "src/data/bpe_model.h"
#include "src/data/file_io.h"
#include "src/data/tiktoken.h"
#include "src/data/tokenizer.h"
#include "src/data/tokenizer_json.h"

namespace moba {

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json) {
  static const std::string byte_json = make_byte_tokenizer()->json();
  if (json == byte_json) return make_byte_tokenizer();
  return make_bpe_tokenizer(read_tokenizer_json(json), std::string(json));
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& what, const std::string& pattern) {
  const bool ranks = what.ends_with(".tiktoken");
  MOBA_CHECK(ranks || pattern.empty(), "{}: a pattern goes with a .tiktoken file only", what);
  if (what == "byte") return make_byte_tokenizer();
  MOBA_CHECK(!ranks || !pattern.empty(), "{}: a rank file does not say its pre-tokenizer; give --pattern gpt2, cl100k, o200k or llama3",
             what);
  const std::string contents = read_file(what);
  try {
    if (!ranks) return tokenizer_from_json(contents);
    BpeModel model = read_tiktoken(contents, pattern);
    std::string json = write_tokenizer_json(model);
    return make_bpe_tokenizer(std::move(model), std::move(json));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", what, error.what()), error.code());
  }
}

std::vector<int32_t> unused_ids(const Tokenizer& tokenizer) {
  std::vector<int32_t> unused;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    if (tokenizer.decode({&id, 1}).empty()) unused.push_back(id);
  return unused;
}

}  // namespace moba
