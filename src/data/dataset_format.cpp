#include "src/data/dataset_format.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <vector>

#include "kernels/common/check.h"

namespace moba {

uint64_t dataset_content_hash(std::span<const uint64_t> tokens, std::span<const uint64_t> loss_mask, uint64_t offsets) {
  std::vector<uint64_t> all(tokens.begin(), tokens.end());
  all.insert(all.end(), loss_mask.begin(), loss_mask.end());
  all.push_back(offsets);
  return XXH3_64bits(all.data(), all.size() * sizeof(uint64_t));
}

std::string sha256_hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  MOBA_ASSERT(EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) == 1);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace moba
