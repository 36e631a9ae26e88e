#include "src/data/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/common/check.h"
#include "src/data/output_file.h"

namespace moba {
namespace {

std::string folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

File::File(const std::string& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
  if (fd_ >= 0) return;
  const bool reading = (flags & O_ACCMODE) == O_RDONLY;
  throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)), reading ? ExitCode::usage : ExitCode::io);
}

File File::scratch_beside(const std::string& path) {
  File file;
  file.path_ = path + " (scratch file)";
  std::string name = path + ".scratch.XXXXXX";
  file.fd_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (file.fd_ < 0) file.fail("created");
  ::unlink(name.c_str());
  return file;
}

File::File(File&& other) noexcept { *this = std::move(other); }

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(appended_, other.appended_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

void File::fail(const char* verb) const {
  const int error = errno;
  const char* remedy = error == ENOSPC || error == EDQUOT ? " (free some space or choose another folder)" : "";
  throw Error(fmt::format("{}: cannot be {}: {}{}", path_, verb, std::strerror(error), remedy), ExitCode::io);
}

void File::read_at(int64_t offset, void* out, size_t bytes) const {
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, to, bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read");
    if (got == 0)
      throw Error(fmt::format("{}: ends before byte {}: truncated", path_, offset + static_cast<int64_t>(bytes)), ExitCode::corrupt_input);
    to += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
}

void File::write_at(int64_t offset, const void* data, size_t bytes) const {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(fd_, from, bytes, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("written");
    from += put;
    offset += put;
    bytes -= static_cast<size_t>(put);
  }
}

void File::append(const void* data, size_t bytes) {
  write_at(appended_, data, bytes);
  appended_ += static_cast<int64_t>(bytes);
}

void File::sync() const {
  if (::fsync(fd_) != 0) fail("synced");
}

void File::close() {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0) fail("closed");
}

std::string read_file(const std::string& path) {
  const File file(path, O_RDONLY);
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  MOBA_CHECK(!error, "{}: not a regular file", path);
  std::string contents(size, '\0');
  file.read_at(0, contents.data(), contents.size());
  return contents;
}

void write_file(const std::string& path, std::string_view contents) {
  check_output_file(path);
  const std::string temporary = unused_name_beside(path);
  try {
    File file(temporary, O_WRONLY | O_CREAT | O_EXCL);
    file.append(contents.data(), contents.size());
    file.sync();
    file.close();
    rename_synced(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void rename_synced(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw Error(fmt::format("{}: cannot be renamed to {}: {}", from, to, std::strerror(errno)), ExitCode::io);
  }
  const File folder(folder_of(to), O_RDONLY | O_DIRECTORY);
  folder.sync();
}

}  // namespace moba
