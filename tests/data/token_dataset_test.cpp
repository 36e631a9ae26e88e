#include "src/data/token_dataset.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>

#include <csignal>
#include <numeric>

#include "kernels/common/check.h"
#include "src/data/file_io.h"
#include "tests/data/data_files.h"

namespace moba::test {
namespace {

// What opening and verifying the file says; "whole" when nothing is wrong.
std::string verdict(const std::string& path) {
  try {
    TokenDataset(path).verify();
    return "whole";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    return fmt::format("{}: {}", static_cast<int>(error.code()), error.what());
  }
}

::testing::AssertionResult is_corrupt(const std::string& path, const std::string& part) {
  const std::string said = verdict(path);
  if (said.starts_with("3: ") && said.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "wanted exit code 3 and \"" << part << "\", got " << said;
}

// A dataset larger than one checksum piece.
std::string large_dataset(const DataFolder& folder, bool with_mask = false) {
  const auto path = folder.path("large.h5");
  TokenDatasetWriter writer(path, 300, 256, -1, "{}", with_mask);
  std::vector<int32_t> tokens(700'001);
  std::vector<uint8_t> mask(tokens.size());
  for (int d = 0; d < 2; ++d) {
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * 31 + d) % 256), mask[i] = i % 3 == 0;
    tokens.back() = 256;
    writer.add_document(tokens, with_mask ? std::span<const uint8_t>(mask) : std::span<const uint8_t>());
  }
  writer.finish();
  return path;
}

int64_t offset_of(const std::string& path, const char* name) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, name, H5P_DEFAULT);
  const auto offset = static_cast<int64_t>(H5Dget_offset(set));
  H5Dclose(set);
  H5Fclose(file);
  return offset;
}

void flip_bit(const std::string& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(at);
  file.put(byte);
}

template <class Change>
void edit(const std::string& path, Change&& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  H5Fclose(file);
}

void set_integer(hid_t file, const char* name, int64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
}

TEST(TokenDataset, GivesBackWhatWasWritten) {
  const DataFolder folder;
  for (const int64_t vocab : {300, 65536, 65537, 200'000}) {
    const auto path = folder.path("a.h5");
    const auto top = static_cast<int32_t>(vocab - 1);
    TokenDatasetWriter writer(path, vocab, 256, 5, "{\"v\":1}", true);
    writer.add_document(std::vector<int32_t>{5, top, 256}, std::vector<uint8_t>{0, 1, 1});
    writer.add_document(std::vector<int32_t>{256}, std::vector<uint8_t>{0});
    EXPECT_FALSE(std::filesystem::exists(path) && vocab == 300);  // only finish() puts the name there
    writer.finish();
    const TokenDataset data(path);
    EXPECT_EQ(data.info().tokens, 4);
    EXPECT_EQ(data.info().documents, 2);
    EXPECT_EQ(data.info().vocab_size, vocab);
    EXPECT_EQ(data.info().wide, vocab > 65536);
    EXPECT_EQ(data.info().eos_token_id, 256);
    EXPECT_EQ(data.info().bos_token_id, 5);
    EXPECT_EQ(data.info().tokenizer_json, "{\"v\":1}");
    EXPECT_EQ(data.info().tokenizer_sha256.size(), 64u);
    EXPECT_TRUE(data.info().has_loss_mask);
    EXPECT_EQ(std::vector(data.document_offsets().begin(), data.document_offsets().end()), (std::vector<int64_t>{0, 3, 4}));
    std::vector<int32_t> tokens(4);
    std::vector<uint8_t> mask(4);
    data.read_tokens(0, 4, tokens.data());
    data.read_loss_mask(0, 4, mask.data());
    EXPECT_EQ(tokens, (std::vector<int32_t>{5, top, 256, 256}));
    EXPECT_EQ(mask, (std::vector<uint8_t>{0, 1, 1, 0}));
    data.read_tokens(1, 1, tokens.data());
    EXPECT_EQ(tokens[0], top);
    EXPECT_EQ(verdict(path), "whole");
  }
}

TEST(TokenDataset, ReadsAcrossChecksumPieces) {
  const DataFolder folder;
  const TokenDataset data(large_dataset(folder, true));
  EXPECT_EQ(verdict(data.path()), "whole");
  constexpr int64_t kBegin = (1 << 20) - 100, kCount = 200;
  std::vector<int32_t> tokens(kCount);
  std::vector<uint8_t> mask(kCount);
  data.read_tokens(kBegin, kCount, tokens.data());
  data.read_loss_mask(kBegin, kCount, mask.data());
  for (int64_t i = 0; i < kCount; ++i) {
    const int64_t in_document = kBegin + i - 700'001;
    EXPECT_EQ(tokens[i], (in_document * 31 + 1) % 256);
    EXPECT_EQ(mask[i], in_document % 3 == 0);
  }
}

TEST(TokenDataset, ContentHashFollowsTheContent) {
  const DataFolder folder;
  const auto hash = [&](const std::vector<std::vector<int32_t>>& documents) {
    return TokenDataset(folder.dataset("h.h5", documents)).info().content_hash;
  };
  const auto base = hash({{1, 2, 256}, {3, 256}});
  EXPECT_EQ(base, hash({{1, 2, 256}, {3, 256}}));
  EXPECT_NE(base, hash({{1, 2, 256}, {4, 256}}));
  EXPECT_NE(base, hash({{1, 2, 256, 3, 256}}));
}

TEST(TokenDataset, MissingFilesAndWrongFilesAreToldApart) {
  const DataFolder folder;
  EXPECT_TRUE(verdict(folder.path("none.h5")).starts_with("2: "));
  EXPECT_TRUE(is_corrupt(folder.write("text.h5", "just text"), "not an HDF5 file"));
  EXPECT_TRUE(is_corrupt(folder.write("empty.h5", ""), "not an HDF5 file"));
}

TEST(TokenDataset, FindsTruncation) {
  const DataFolder folder;
  const auto path = large_dataset(folder);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  for (const int64_t left : {size - 1, size / 2, int64_t{100}}) {
    std::filesystem::resize_file(path, left);
    EXPECT_TRUE(is_corrupt(path, path));
  }
}

TEST(TokenDataset, VerifyFindsOneFlippedBit) {
  const DataFolder folder;
  const auto path = large_dataset(folder, true);
  const struct {
    const char* dataset;
    int64_t at;
    const char* said;
  } flips[] = {{"/tokens", 2 * 1'200'000, "/tokens: tokens 1048576 to"},
               {"/tokens", 0, "/tokens: tokens 0 to"},
               {"/loss_mask", 5, "/loss_mask"},
               {"/checksums", 3, "/tokens"},
               {"/document_offsets", 8, "document_offsets"},
               {"/tokenizer_json", 1, "tokenizer_json"}};
  for (const auto& flip : flips) {
    const int64_t at = offset_of(path, flip.dataset) + flip.at;
    flip_bit(path, at);
    EXPECT_TRUE(is_corrupt(path, flip.said)) << flip.dataset;
    flip_bit(path, at);
    EXPECT_EQ(verdict(path), "whole");
  }
}

TEST(TokenDataset, ReadingFindsDamageWhereItIs) {
  const DataFolder folder;
  const auto path = large_dataset(folder, true);
  flip_bit(path, offset_of(path, "/tokens") + 2 * 1'200'000);
  flip_bit(path, offset_of(path, "/loss_mask") + 5);
  const TokenDataset data(path);
  std::vector<int32_t> tokens(100);
  std::vector<uint8_t> mask(100);
  EXPECT_NO_THROW(data.read_tokens(1'048'476, 100, tokens.data()));      // the last of the first piece
  EXPECT_THROW(data.read_tokens(1'048'477, 100, tokens.data()), Error);  // one token of the second
  EXPECT_NO_THROW(data.read_loss_mask(1'048'576, 100, mask.data()));
  EXPECT_THROW(data.read_loss_mask(1'048'500, 100, mask.data()), Error);
}

TEST(TokenDataset, RefusesDamagedHeaders) {
  const DataFolder folder;
  const auto damaged = [&](auto&& change) {
    const auto path = folder.dataset("d.h5", {{1, 2, 256}, {3, 256}});
    edit(path, change);
    return path;
  };
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { H5Ldelete(f, "/tokens", H5P_DEFAULT); }), "/tokens: missing"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { H5Ldelete(f, "/document_offsets", H5P_DEFAULT); }), "/document_offsets: missing"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { H5Ldelete(f, "/checksums", H5P_DEFAULT); }), "/checksums: missing"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { H5Adelete(f, "vocab_size"); }), "vocab_size"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { set_integer(f, "format_version", 9); }), "format_version 9"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { set_integer(f, "vocab_size", 200); }), "outside the vocabulary"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { set_integer(f, "vocab_size", 70'000); }), "element type"));
  EXPECT_TRUE(is_corrupt(damaged([](hid_t f) { set_integer(f, "eos_token_id", 7); }), "not closed by the end token"));
}

TEST(TokenDataset, RefusesChunkedTokens) {
  const DataFolder folder;
  const auto path = folder.dataset("d.h5", {{1, 2, 256}});
  edit(path, [](hid_t file) {
    H5Ldelete(file, "/tokens", H5P_DEFAULT);
    const hsize_t size = 3;
    const hid_t space = H5Screate_simple(1, &size, nullptr), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 1, &size);
    H5Dclose(H5Dcreate2(file, "/tokens", H5T_STD_U16LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Pclose(plist);
    H5Sclose(space);
  });
  EXPECT_TRUE(is_corrupt(path, "contiguously"));
}

TEST(TokenDatasetWriter, LeavesNothingBehindWhenAbandoned) {
  const DataFolder folder;
  {
    TokenDatasetWriter writer(folder.path("a.h5"), 300, 256, -1, "{}", true);
    writer.add_document(std::vector<int32_t>{1, 256}, std::vector<uint8_t>{1, 1});
    EXPECT_THROW(writer.add_document(std::vector<int32_t>{300}, std::vector<uint8_t>{1}), Error);
    EXPECT_THROW(writer.add_document({}), Error);
  }
  {
    TokenDatasetWriter writer(folder.path("b.h5"), 300, 256, -1, "{}", false);
    EXPECT_THROW(writer.finish(), Error);  // no documents
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
}

TEST(TokenDatasetWriter, KeepsTheOldFileWhenTheDiskIsFull) {
  const DataFolder folder;
  const auto path = folder.dataset("a.h5", {{1, 256}});
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{1 << 16, old_limit.rlim_max};  // a write beyond 64 KiB fails, as on a full disk
  setrlimit(RLIMIT_FSIZE, &small);
  ExitCode code = ExitCode::done;
  try {
    TokenDatasetWriter writer(path, 300, 256, -1, "{}", false);
    writer.add_document(std::vector<int32_t>(100'000, 256));
    writer.finish();
  } catch (const Error& error) {
    code = error.code();
  }
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(code, ExitCode::io);
  EXPECT_EQ(TokenDataset(path).info().tokens, 2);
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(TokenDatasetWriter, SaysWhenTheFolderIsMissing) {
  const DataFolder folder;
  try {
    TokenDatasetWriter writer(folder.path("none/a.h5"), 300, 256, -1, "{}", false);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
  }
}

}  // namespace
}  // namespace moba::test
