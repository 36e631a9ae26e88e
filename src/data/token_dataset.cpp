#include "src/data/token_dataset.h"

#include <fcntl.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>

#include "src/data/dataset_format.h"
#include "src/data/file_io.h"
#include "src/data/hdf5_file.h"

namespace moba {

struct TokenDataset::Impl {
  std::string path;
  DatasetInfo info;
  File file;
  hdf5::Extent tokens, loss_mask;
  std::vector<int64_t> offsets;  // [documents + 1]
  std::vector<uint64_t> checksums, loss_mask_checksums;
  uint64_t offsets_checksum = 0;
  mutable std::vector<std::atomic<bool>> tokens_checked, loss_mask_checked;  // [pieces]

  [[noreturn]] void corrupt(const std::string& why) const {
    throw Error(fmt::format("{}: {} (make it again with moba-data prepare)", path, why), ExitCode::corrupt_input);
  }
  template <class T>
  std::vector<T> read_all(const hdf5::Extent& extent) const {
    std::vector<T> values(static_cast<size_t>(extent.count));
    file.read_at(extent.offset, values.data(), values.size() * sizeof(T));
    return values;
  }
  void check_offsets() const;
  void check_piece(const char* name, const hdf5::Extent& extent, const std::vector<uint64_t>& sums, size_t piece) const;
  // Every piece that [begin, begin + count) touches is hashed when it is read for the first time. Two threads may both hash it.
  void check_once(const char* name, const hdf5::Extent& extent, const std::vector<uint64_t>& sums, std::vector<std::atomic<bool>>& checked,
                  int64_t begin, int64_t count) const;
};

void TokenDataset::Impl::check_offsets() const {
  if (offsets.size() < 2) corrupt("/document_offsets: needs at least two entries");
  if (offsets.front() != 0) corrupt("/document_offsets: must start with 0");
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] <= offsets[i - 1]) corrupt(fmt::format("/document_offsets: entry {} does not rise", i));
  }
  if (offsets.back() != tokens.count)
    corrupt(fmt::format("/document_offsets: ends at {}, but there are {} tokens", offsets.back(), tokens.count));
}

void TokenDataset::Impl::check_piece(const char* name, const hdf5::Extent& extent, const std::vector<uint64_t>& sums, size_t piece) const {
  const int64_t begin = static_cast<int64_t>(piece) * kChecksumTokens;
  const int64_t count = std::min(kChecksumTokens, extent.count - begin);
  std::vector<char> bytes(static_cast<size_t>(count) * extent.element_size);
  file.read_at(extent.offset + begin * static_cast<int64_t>(extent.element_size), bytes.data(), bytes.size());
  const uint64_t got = XXH3_64bits(bytes.data(), bytes.size());
  if (got == sums[piece]) return;
  corrupt(fmt::format("{}: tokens {} to {}: checksum {:016x}, want {:016x}", name, begin, begin + count - 1, got, sums[piece]));
}

void TokenDataset::Impl::check_once(const char* name, const hdf5::Extent& extent, const std::vector<uint64_t>& sums,
                                    std::vector<std::atomic<bool>>& checked, int64_t begin, int64_t count) const {
  if (count == 0) return;
  const auto last = static_cast<size_t>((begin + count - 1) / kChecksumTokens);
  for (auto piece = static_cast<size_t>(begin / kChecksumTokens); piece <= last; ++piece) {
    if (checked[piece].load(std::memory_order_relaxed)) continue;
    check_piece(name, extent, sums, piece);
    checked[piece].store(true, std::memory_order_relaxed);
  }
}

TokenDataset::TokenDataset(const std::string& path) : impl_(new Impl) {
  Impl& d = *impl_;
  d.path = path;
  const hdf5::Reader reader(path);
  const int64_t version = reader.integer("format_version");
  if (version != kDatasetFormatVersion)
    d.corrupt(fmt::format("format_version {} is not known here (want {})", version, kDatasetFormatVersion));
  d.info.vocab_size = reader.integer("vocab_size");
  d.info.eos_token_id = static_cast<int32_t>(reader.integer("eos_token_id"));
  d.info.bos_token_id = static_cast<int32_t>(reader.integer("bos_token_id"));
  d.info.tokenizer_sha256 = reader.text("tokenizer_sha256");
  if (d.info.vocab_size < 1 || d.info.vocab_size > INT32_MAX) d.corrupt(fmt::format("vocab_size {} is out of range", d.info.vocab_size));
  if (d.info.eos_token_id >= d.info.vocab_size) d.corrupt(fmt::format("eos_token_id {} is outside the vocabulary", d.info.eos_token_id));

  d.info.wide = d.info.vocab_size > kNarrowVocab;
  d.tokens = reader.extent("/tokens", {d.info.wide ? size_t{4} : size_t{2}});
  d.info.has_loss_mask = reader.has("/loss_mask");
  const hdf5::Extent offsets = reader.extent("/document_offsets", {8}, true), checksums = reader.extent("/checksums", {8}),
                     json = reader.extent("/tokenizer_json", {1});
  const int64_t pieces = (d.tokens.count + kChecksumTokens - 1) / kChecksumTokens;
  if (checksums.count != pieces) d.corrupt(fmt::format("/checksums: {} entries, want {}", checksums.count, pieces));

  d.file = File(path, O_RDONLY);
  d.offsets = d.read_all<int64_t>(offsets);
  d.check_offsets();
  d.checksums = d.read_all<uint64_t>(checksums);
  d.tokens_checked = std::vector<std::atomic<bool>>(d.checksums.size());
  if (d.info.has_loss_mask) {
    d.loss_mask = reader.extent("/loss_mask", {1});
    const hdf5::Extent sums = reader.extent("/loss_mask_checksums", {8});
    if (d.loss_mask.count != d.tokens.count)
      d.corrupt(fmt::format("/loss_mask: {} entries for {} tokens", d.loss_mask.count, d.tokens.count));
    if (sums.count != pieces) d.corrupt(fmt::format("/loss_mask_checksums: {} entries, want {}", sums.count, pieces));
    d.loss_mask_checksums = d.read_all<uint64_t>(sums);
    d.loss_mask_checked = std::vector<std::atomic<bool>>(d.loss_mask_checksums.size());
  }
  const auto json_bytes = d.read_all<char>(json);
  d.info.tokenizer_json.assign(json_bytes.begin(), json_bytes.end());
  if (sha256_hex(d.info.tokenizer_json) != d.info.tokenizer_sha256) d.corrupt("/tokenizer_json: does not match tokenizer_sha256");
  d.info.tokens = d.tokens.count;
  d.info.documents = static_cast<int64_t>(d.offsets.size()) - 1;
  d.offsets_checksum = static_cast<uint64_t>(reader.integer("document_offsets_checksum"));
  if (XXH3_64bits(d.offsets.data(), d.offsets.size() * sizeof(int64_t)) != d.offsets_checksum)
    d.corrupt("/document_offsets: wrong checksum");
  d.info.content_hash = dataset_content_hash(d.checksums, d.loss_mask_checksums, d.offsets_checksum);
}

TokenDataset::~TokenDataset() = default;
TokenDataset::TokenDataset(TokenDataset&&) noexcept = default;
const std::string& TokenDataset::path() const { return impl_->path; }
const DatasetInfo& TokenDataset::info() const { return impl_->info; }
std::span<const int64_t> TokenDataset::document_offsets() const { return impl_->offsets; }

void TokenDataset::read_tokens(int64_t begin, int64_t count, int32_t* out) const {
  const Impl& d = *impl_;
  MOBA_ASSERT(begin >= 0 && count >= 0 && begin + count <= d.info.tokens);
  d.check_once("/tokens", d.tokens, d.checksums, d.tokens_checked, begin, count);
  const auto bytes = static_cast<size_t>(count) * d.tokens.element_size;
  const int64_t at = d.tokens.offset + begin * static_cast<int64_t>(d.tokens.element_size);
  if (d.info.wide) {
    d.file.read_at(at, out, bytes);
  } else {
    // Read into the upper half of `out`, then widened from the front: the write never overtakes the read.
    auto* narrow = reinterpret_cast<char*>(out) + bytes;
    d.file.read_at(at, narrow, bytes);
    for (int64_t i = 0; i < count; ++i) {
      uint16_t token;
      __builtin_memcpy(&token, narrow + 2 * i, 2);
      out[i] = token;
    }
  }
  const auto vocab = static_cast<uint32_t>(d.info.vocab_size);
  for (int64_t i = 0; i < count; ++i) {
    if (static_cast<uint32_t>(out[i]) < vocab) [[likely]]
      continue;
    d.corrupt(fmt::format("/tokens: token {} has id {}, outside the vocabulary of {}", begin + i, static_cast<uint32_t>(out[i]), vocab));
  }
}

void TokenDataset::read_loss_mask(int64_t begin, int64_t count, uint8_t* out) const {
  const Impl& d = *impl_;
  MOBA_ASSERT(begin >= 0 && count >= 0 && begin + count <= d.info.tokens);
  if (!d.info.has_loss_mask) {
    std::fill_n(out, count, uint8_t{1});
    return;
  }
  d.check_once("/loss_mask", d.loss_mask, d.loss_mask_checksums, d.loss_mask_checked, begin, count);
  d.file.read_at(d.loss_mask.offset + begin, out, static_cast<size_t>(count));
}

void TokenDataset::verify() const {
  const Impl& d = *impl_;
  for (size_t piece = 0; piece < d.checksums.size(); ++piece) d.check_piece("/tokens", d.tokens, d.checksums, piece);
  for (size_t piece = 0; piece < d.loss_mask_checksums.size(); ++piece)
    d.check_piece("/loss_mask", d.loss_mask, d.loss_mask_checksums, piece);
  std::vector<int32_t> tokens(1 << 16);
  for (int64_t begin = 0; begin < d.info.tokens; begin += 1 << 16) {
    read_tokens(begin, std::min<int64_t>(1 << 16, d.info.tokens - begin), tokens.data());  // checks the range of ids
  }
  for (size_t i = 1; i < d.offsets.size() && d.info.eos_token_id >= 0; ++i) {
    int32_t last = 0;
    read_tokens(d.offsets[i] - 1, 1, &last);
    if (last != d.info.eos_token_id)
      d.corrupt(fmt::format("/tokens: document {} is not closed by the end token {}", i - 1, d.info.eos_token_id));
  }
}

}  // namespace moba
