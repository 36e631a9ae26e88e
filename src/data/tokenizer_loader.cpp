#include "kernels/common/check.h"
#include "src/data/file_io.h"
#include "src/data/tokenizer.h"

namespace moba {

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json) {
  auto bytes = make_byte_tokenizer();
  MOBA_CHECK(json == bytes->json(), "this tokenizer.json is not the byte tokenizer's");
  return bytes;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& what, const std::string& pattern) {
  MOBA_CHECK(pattern.empty(), "--pattern goes with a .tiktoken file");
  if (what == "byte") return make_byte_tokenizer();
  return tokenizer_from_json(read_file(what));
}

}  // namespace moba
