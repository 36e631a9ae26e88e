// Tokens and mask stream to unnamed scratch files; finish() knows the sizes, lays out the HDF5 file under a temporary name,
// copies the bytes in, syncs and renames. Memory: two offsets per document and a few MiB.
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>

#include "src/data/dataset_format.h"
#include "src/data/file_io.h"
#include "src/data/hdf5_file.h"
#include "src/data/output_file.h"
#include "src/data/token_dataset.h"

namespace moba {
namespace {

// A growing row of bytes with one checksum per piece of `piece_bytes`.
class Stream {
 public:
  Stream(const std::string& beside, size_t piece_bytes) : file_(File::scratch_beside(beside)), piece_bytes_(piece_bytes) {
    piece_.reserve(piece_bytes);
  }

  void append(const void* data, size_t bytes) {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const size_t take = std::min(bytes, piece_bytes_ - piece_.size());
      piece_.insert(piece_.end(), from, from + take);
      from += take;
      bytes -= take;
      if (piece_.size() == piece_bytes_) flush();
    }
  }

  void flush() {
    if (piece_.empty()) return;
    checksums_.push_back(XXH3_64bits(piece_.data(), piece_.size()));
    file_.append(piece_.data(), piece_.size());
    piece_.clear();
  }

  void copy_to(const File& target, int64_t offset) {
    piece_.resize(piece_bytes_);
    for (int64_t done = 0; done < file_.appended();) {
      const auto bytes = static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(piece_bytes_), file_.appended() - done));
      file_.read_at(done, piece_.data(), bytes);
      target.write_at(offset + done, piece_.data(), bytes);
      done += static_cast<int64_t>(bytes);
    }
  }

  const std::vector<uint64_t>& checksums() const { return checksums_; }

 private:
  File file_;
  size_t piece_bytes_;
  std::vector<char> piece_;
  std::vector<uint64_t> checksums_;
};

template <class T>
size_t bytes_of(const std::vector<T>& values) {
  return values.size() * sizeof(T);
}

}  // namespace

struct TokenDatasetWriter::Impl {
  std::string path, temporary, tokenizer_json;
  int64_t vocab_size;
  int32_t eos, bos;
  bool wide;
  bool finished = false;
  Stream tokens;
  std::unique_ptr<Stream> loss_mask;
  std::vector<int64_t> offsets{0};
  int64_t written = 0;  // tokens
  std::vector<uint16_t> narrow;
};

TokenDatasetWriter::TokenDatasetWriter(const std::string& path, int64_t vocab_size, int32_t eos, int32_t bos,
                                       const std::string& tokenizer_json, bool with_loss_mask) {
  MOBA_CHECK(vocab_size > 0 && vocab_size <= INT32_MAX, "{}: vocabulary size {} is out of range", path, vocab_size);
  check_output_file(path);
  const bool wide = vocab_size > kNarrowVocab;
  impl_.reset(new Impl{path,
                       unused_name_beside(path),
                       tokenizer_json,
                       vocab_size,
                       eos,
                       bos,
                       wide,
                       false,
                       Stream(path, kChecksumTokens * (wide ? 4 : 2)),
                       nullptr,
                       {0},
                       0,
                       {}});
  if (with_loss_mask) impl_->loss_mask = std::make_unique<Stream>(path, kChecksumTokens);
}

TokenDatasetWriter::~TokenDatasetWriter() {
  if (!impl_->finished) ::unlink(impl_->temporary.c_str());
}

void TokenDatasetWriter::add_document(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask) {
  add_part(tokens, loss_mask);
  end_document();
}

void TokenDatasetWriter::add_part(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask) {
  Impl& w = *impl_;
  for (const int32_t token : tokens) {
    MOBA_CHECK(token >= 0 && token < w.vocab_size, "{}: token id {} is outside the vocabulary of {}", w.path, token, w.vocab_size);
  }
  if (w.wide) {
    w.tokens.append(tokens.data(), tokens.size_bytes());
  } else {
    w.narrow.assign(tokens.begin(), tokens.end());
    w.tokens.append(w.narrow.data(), bytes_of(w.narrow));
  }
  if (w.loss_mask) {
    MOBA_ASSERT(loss_mask.size() == tokens.size());
    w.loss_mask->append(loss_mask.data(), loss_mask.size());
  }
  w.written += static_cast<int64_t>(tokens.size());
}

void TokenDatasetWriter::end_document() {
  Impl& w = *impl_;
  MOBA_CHECK(w.written > w.offsets.back(), "{}: a document has no tokens", w.path);
  w.offsets.push_back(w.written);
}

void TokenDatasetWriter::finish() {
  Impl& w = *impl_;
  MOBA_ASSERT(w.written == w.offsets.back());
  MOBA_CHECK(w.offsets.size() > 1, "{}: nothing to write, the input holds no documents", w.path);
  w.tokens.flush();
  if (w.loss_mask) w.loss_mask->flush();
  const auto count = [](const auto& values) { return static_cast<int64_t>(values.size()); };
  const uint64_t offsets_checksum = XXH3_64bits(w.offsets.data(), bytes_of(w.offsets));

  hdf5::Creator file(w.temporary);
  file.integer("format_version", kDatasetFormatVersion);
  file.text("tokenizer_sha256", sha256_hex(w.tokenizer_json));
  file.integer("vocab_size", w.vocab_size);
  file.integer("eos_token_id", w.eos);
  file.integer("bos_token_id", w.bos);
  file.integer("document_offsets_checksum", static_cast<int64_t>(offsets_checksum));
  const int64_t json_at = file.allocate("/tokenizer_json", H5T_STD_U8LE, count(w.tokenizer_json));
  const int64_t offsets_at = file.allocate("/document_offsets", H5T_STD_I64LE, count(w.offsets));
  const int64_t checksums_at = file.allocate("/checksums", H5T_STD_U64LE, count(w.tokens.checksums()));
  int64_t mask_at = 0, mask_checksums_at = 0;
  if (w.loss_mask) {
    mask_checksums_at = file.allocate("/loss_mask_checksums", H5T_STD_U64LE, count(w.loss_mask->checksums()));
    mask_at = file.allocate("/loss_mask", H5T_STD_U8LE, w.offsets.back());
  }
  const int64_t tokens_at = file.allocate("/tokens", w.wide ? H5T_STD_U32LE : H5T_STD_U16LE, w.offsets.back());
  file.close();

  File raw(w.temporary, O_RDWR);
  raw.write_at(json_at, w.tokenizer_json.data(), w.tokenizer_json.size());
  raw.write_at(offsets_at, w.offsets.data(), bytes_of(w.offsets));
  raw.write_at(checksums_at, w.tokens.checksums().data(), bytes_of(w.tokens.checksums()));
  w.tokens.copy_to(raw, tokens_at);
  if (w.loss_mask) {
    raw.write_at(mask_checksums_at, w.loss_mask->checksums().data(), bytes_of(w.loss_mask->checksums()));
    w.loss_mask->copy_to(raw, mask_at);
  }
  raw.sync();
  raw.close();
  rename_synced(w.temporary, w.path);
  w.finished = true;
}

}  // namespace moba
