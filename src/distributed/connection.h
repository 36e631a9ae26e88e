// A TCP connection that carries small JSON messages, each behind its length. For the watchdog's star: never blocks after it is made.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace moba {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

class Connection {
 public:
  Connection() = default;
  explicit Connection(FileDescriptor socket);
  int fd() const { return socket_.get(); }
  bool open() const { return socket_.valid(); }
  bool has_output() const { return !out_.empty(); }
  bool congested() const { return out_.size() > (64u << 10); }  // the other side does not read: it is stopped, or gone

  void send(const nlohmann::json& message);  // queues, and writes what fits
  void flush();
  std::vector<nlohmann::json> receive();                           // what has arrived; closes itself at the end of the stream
  bool wait_for_message(nlohmann::json& message, double seconds);  // for the handshake
  void close() { socket_.reset(); }

 private:
  FileDescriptor socket_;
  std::string in_, out_;
  std::vector<nlohmann::json> early_;  // arrived behind the handshake
};

std::string host_name();

// Listens on all IPv4 addresses at a free port. addresses: "127.0.0.1:port" first, then those of the interfaces.
struct Listener {
  FileDescriptor socket;
  std::vector<std::string> addresses;
  static Listener open();
  Connection accept(double seconds);  // not open() after that time
};
Connection connect_to(const std::string& address, double seconds);  // not open() if it fails

}  // namespace moba
