// Token datasets in HDF5 (layout: docs/data.md). Reading takes /tokens straight from the file, and hashes each piece that has a
// checksum when it is first touched, so that damage is an error and never training data; writing streams to a temporary name and
// renames when complete.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace moba {

struct DatasetInfo {
  int64_t tokens = 0, documents = 0;
  int64_t vocab_size = 0;
  int32_t eos_token_id = -1, bos_token_id = -1;
  bool wide = false;  // uint32 tokens
  bool has_loss_mask = false;
  std::string tokenizer_sha256;
  std::string tokenizer_json;
  uint64_t content_hash = 0;  // XXH3 of the checksums, identifies the file's content
};

class TokenDataset {
 public:
  explicit TokenDataset(const std::string& path);  // Error: missing (usage), corrupt (corrupt_input)
  ~TokenDataset();
  TokenDataset(TokenDataset&&) noexcept;
  const std::string& path() const;
  const DatasetInfo& info() const;
  void read_tokens(int64_t begin, int64_t count, int32_t* out) const;     // thread-safe
  void read_loss_mask(int64_t begin, int64_t count, uint8_t* out) const;  // 1s when the file has none
  std::span<const int64_t> document_offsets() const;                      // [documents + 1]
  void verify() const;  // re-hashes everything; Error(corrupt_input) names the first bad piece

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class TokenDatasetWriter {
 public:
  // tokenizer_json is stored; wide iff vocab_size > 65536.
  TokenDatasetWriter(const std::string& path, int64_t vocab_size, int32_t eos, int32_t bos, const std::string& tokenizer_json,
                     bool with_loss_mask);
  ~TokenDatasetWriter();  // removes the temporary file if finish() was not called
  void add_document(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask = {});  // tokens incl. closing EOS
  // The same in parts: one or more, then end_document().
  void add_part(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask = {});
  void end_document();
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moba
