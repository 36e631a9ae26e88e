// Files that are whole or absent: written to "<path>.tmp", hashed on the way out, fsynced, renamed. And the hashes of files as
// manifests state them. Every failure is an Error with ExitCode::io that names path and reason.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace moba {

struct FileDigest {
  int64_t bytes = 0;
  std::string xxh3;    // XXH3 64 bit, 16 hex digits: what this project checks
  std::string sha256;  // 64 hex digits, for anybody with sha256sum; empty where it was not asked for
};

class HashedFileWriter {
 public:
  explicit HashedFileWriter(std::string path);
  ~HashedFileWriter();  // removes the temporary file unless commit() was reached
  HashedFileWriter(const HashedFileWriter&) = delete;

  // Writes and hashes at the same time (a second thread hashes large pieces); `data` may be reused on return.
  void append(const void* data, size_t bytes);
  FileDigest commit();  // fsync, rename; the folder itself is the caller's to fsync

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

FileDigest write_hashed_file(const std::string& path, std::string_view content);
std::string read_whole_file(const std::string& path);  // Error(corrupt_input) if it cannot be read
FileDigest hash_file(const std::string& path);         // bytes and xxh3 only

void sync_directory(const std::string& path);  // makes renames and new names inside durable
void rename_path(const std::string& from, const std::string& to);

}  // namespace moba
