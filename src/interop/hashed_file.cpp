#include "src/interop/hashed_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr size_t kReadBytes = size_t{4} << 20;
// Below this a hand-over to the hashing thread costs more than the hash.
constexpr size_t kThreadedBytes = size_t{256} << 10;

[[noreturn]] void throw_io(const char* action, const std::string& path, int error) {
  const char* remedy = error == ENOSPC || error == EDQUOT ? "; free disk space and run again" : "";
  throw Error(fmt::format("cannot {} {}: {}{}", action, path, std::strerror(error), remedy), ExitCode::io);
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  int close() { return ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

class Hashes {
 public:
  Hashes() : xxh3_(XXH3_createState()), sha256_(EVP_MD_CTX_new()) {
    MOBA_ASSERT(xxh3_ && sha256_);
    XXH3_64bits_reset(xxh3_);
    MOBA_ASSERT(EVP_DigestInit_ex(sha256_, EVP_sha256(), nullptr) == 1);
  }
  ~Hashes() {
    XXH3_freeState(xxh3_);
    EVP_MD_CTX_free(sha256_);
  }
  Hashes(const Hashes&) = delete;
  void update(const void* data, size_t bytes) {
    XXH3_64bits_update(xxh3_, data, bytes);
    MOBA_ASSERT(EVP_DigestUpdate(sha256_, data, bytes) == 1);
  }
  void finish(FileDigest& digest) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> raw;
    unsigned length = 0;
    MOBA_ASSERT(EVP_DigestFinal_ex(sha256_, raw.data(), &length) == 1);
    digest.sha256.clear();
    for (unsigned i = 0; i < length; ++i) digest.sha256 += fmt::format("{:02x}", raw[i]);
    digest.xxh3 = hex(XXH3_64bits_digest(xxh3_));
  }

 private:
  XXH3_state_t* xxh3_;
  EVP_MD_CTX* sha256_;
};

// Hashes one piece at a time while the owner writes it.
class HashThread {
 public:
  explicit HashThread(Hashes& hashes) : hashes_(hashes), thread_([this] { run(); }) {}
  ~HashThread() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void start(const void* data, size_t bytes) {
    {
      std::lock_guard lock(mutex_);
      data_ = data;
      bytes_ = bytes;
    }
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return data_ == nullptr; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stop_ || data_ != nullptr; });
      if (data_ == nullptr) return;
      lock.unlock();
      hashes_.update(data_, bytes_);
      lock.lock();
      data_ = nullptr;
      changed_.notify_all();
    }
  }

  Hashes& hashes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const void* data_ = nullptr;
  size_t bytes_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

void write_all(int fd, const void* data, size_t bytes, const std::string& path) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io("write", path, errno);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

}  // namespace

struct HashedFileWriter::Impl {
  explicit Impl(std::string to) : path(std::move(to)), temporary(path + ".tmp"), file(temporary, O_WRONLY | O_CREAT | O_TRUNC) {
    if (!file.ok()) throw_io("create", temporary, errno);
  }
  std::string path, temporary;
  Descriptor file;
  int64_t bytes = 0;
  Hashes hashes;
  std::unique_ptr<HashThread> hash_thread;
  bool committed = false;
};

HashedFileWriter::HashedFileWriter(std::string path) : impl_(std::make_unique<Impl>(std::move(path))) {}

HashedFileWriter::~HashedFileWriter() {
  if (!impl_->committed) ::unlink(impl_->temporary.c_str());
}

void HashedFileWriter::append(const void* data, size_t bytes) {
  if (bytes == 0) return;
  impl_->bytes += static_cast<int64_t>(bytes);
  if (bytes < kThreadedBytes) {
    impl_->hashes.update(data, bytes);
    return write_all(impl_->file.get(), data, bytes, impl_->temporary);
  }
  if (!impl_->hash_thread) impl_->hash_thread = std::make_unique<HashThread>(impl_->hashes);
  impl_->hash_thread->start(data, bytes);
  try {
    write_all(impl_->file.get(), data, bytes, impl_->temporary);
  } catch (...) {
    impl_->hash_thread->wait();  // it still reads the caller's data
    throw;
  }
  impl_->hash_thread->wait();
}

FileDigest HashedFileWriter::commit() {
  impl_->hash_thread.reset();
  FileDigest digest{.bytes = impl_->bytes, .xxh3 = {}, .sha256 = {}};
  impl_->hashes.finish(digest);
  if (::fsync(impl_->file.get()) != 0) throw_io("fsync", impl_->temporary, errno);
  if (impl_->file.close() != 0) throw_io("close", impl_->temporary, errno);
  rename_path(impl_->temporary, impl_->path);
  impl_->committed = true;
  return digest;
}

FileDigest write_hashed_file(const std::string& path, std::string_view content) {
  HashedFileWriter writer(path);
  writer.append(content.data(), content.size());
  return writer.commit();
}

namespace {

// Calls f(data, bytes) on consecutive pieces of the file.
template <class F>
void for_each_piece(const std::string& path, F&& f) {
  Descriptor file(path, O_RDONLY);
  // What is not there was lost; what cannot be reached may be sound.
  if (!file.ok())
    throw Error(fmt::format("cannot open {}: {}", path, std::strerror(errno)), errno == ENOENT ? ExitCode::corrupt_input : ExitCode::io);
  std::vector<char> buffer(kReadBytes);
  while (true) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(fmt::format("cannot read {}: {}", path, std::strerror(errno)), ExitCode::io);
    if (n == 0) return;
    f(buffer.data(), static_cast<size_t>(n));
  }
}

}  // namespace

std::string read_whole_file(const std::string& path) {
  std::string content;
  for_each_piece(path, [&](const char* data, size_t bytes) { content.append(data, bytes); });
  return content;
}

FileDigest hash_file(const std::string& path) {
  FileDigest digest;
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  for_each_piece(path, [&](const char* data, size_t bytes) {
    XXH3_64bits_update(state.get(), data, bytes);
    digest.bytes += static_cast<int64_t>(bytes);
  });
  digest.xxh3 = hex(XXH3_64bits_digest(state.get()));
  return digest;
}

void sync_directory(const std::string& path) {
  Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) throw_io("open", path, errno);
  if (::fsync(folder.get()) != 0) throw_io("fsync", path, errno);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_io("rename", from, errno);
}

}  // namespace moba
