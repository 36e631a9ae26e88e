// Whole reads and writes on a file descriptor; a short or failed one is an Error that names the file and says what to do.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace moba {

class File {
 public:
  File() = default;
  // Error: usage when `flags` only reads and the file is missing, else io.
  File(const std::string& path, int flags);
  // An unnamed file in the folder of `path`, gone when closed.
  static File scratch_beside(const std::string& path);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  void read_at(int64_t offset, void* out, size_t bytes) const;  // Error(corrupt_input) when the file ends before
  void write_at(int64_t offset, const void* data, size_t bytes) const;
  void append(const void* data, size_t bytes);  // at the end of what append() wrote so far
  int64_t appended() const { return appended_; }
  void sync() const;
  void close();

 private:
  [[noreturn]] void fail(const char* verb) const;

  std::string path_;
  int fd_ = -1;
  int64_t appended_ = 0;
};

std::string read_file(const std::string& path);                       // Error(usage) when it cannot be read
void write_file(const std::string& path, std::string_view contents);  // temporary name, fsync, rename
void rename_synced(const std::string& from, const std::string& to);   // and fsync of the folder

}  // namespace moba
