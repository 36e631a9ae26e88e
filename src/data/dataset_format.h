// What writer and reader of token datasets agree on beyond names (docs/data.md).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moba {

constexpr int64_t kDatasetFormatVersion = 1;
constexpr int64_t kChecksumTokens = 1 << 20;  // tokens per entry of /checksums
constexpr int64_t kNarrowVocab = 65536;       // uint16 tokens up to this vocabulary size

// XXH3 (64 bits) of all checksums: those of the tokens, then of the loss mask, then of the document offsets.
uint64_t dataset_content_hash(std::span<const uint64_t> tokens, std::span<const uint64_t> loss_mask, uint64_t offsets);
std::string sha256_hex(std::string_view bytes);

}  // namespace moba
