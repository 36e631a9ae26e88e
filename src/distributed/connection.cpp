#include "src/distributed/connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr uint32_t kLongestMessage = 1u << 20;

bool wait_ready(int fd, short events, double seconds) {
  pollfd p{fd, events, 0};
  return poll(&p, 1, static_cast<int>(seconds * 1000)) == 1;
}

}  // namespace

void FileDescriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Connection::Connection(FileDescriptor socket) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd(), F_SETFL, O_NONBLOCK);
}

void Connection::send(const nlohmann::json& message) {
  if (!open()) return;
  // A name may hold bytes that are not UTF-8; they must not end the watchdog.
  const std::string text = message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const uint32_t length = htonl(static_cast<uint32_t>(text.size()));
  out_.append(reinterpret_cast<const char*>(&length), sizeof length);
  out_ += text;
  flush();
}

void Connection::flush() {
  while (open() && !out_.empty()) {
    const ssize_t n = ::send(fd(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      out_.erase(0, static_cast<size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      if (errno != EAGAIN && errno != EWOULDBLOCK) out_.clear();  // the reading side will see the end
      return;
    }
  }
}

std::vector<nlohmann::json> Connection::receive() {
  std::vector<nlohmann::json> messages;
  messages.swap(early_);
  char buffer[4096];
  bool ended = !open();
  while (!ended) {
    const ssize_t n = ::recv(fd(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0) {
      in_.append(buffer, static_cast<size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      ended = n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
      break;
    }
  }
  uint32_t length = 0;
  size_t at = 0;
  while (in_.size() - at >= sizeof length) {
    std::memcpy(&length, in_.data() + at, sizeof length);
    length = ntohl(length);
    if (length > kLongestMessage) ended = true;
    if (length > kLongestMessage || in_.size() - at - sizeof length < length) break;
    auto message = nlohmann::json::parse(in_.begin() + static_cast<ptrdiff_t>(at + sizeof length),
                                         in_.begin() + static_cast<ptrdiff_t>(at + sizeof length + length), nullptr, false);
    if (message.is_object()) messages.push_back(std::move(message));
    at += sizeof length + length;
  }
  in_.erase(0, at);
  if (ended) close();
  return messages;
}

bool Connection::wait_for_message(nlohmann::json& message, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (open()) {
    std::vector<nlohmann::json> messages = receive();
    if (!messages.empty()) {
      message = std::move(messages.front());
      early_.assign(std::make_move_iterator(messages.begin() + 1), std::make_move_iterator(messages.end()));
      return true;
    }
    const double left = std::chrono::duration<double>(end - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    if (open()) wait_ready(fd(), POLLIN, std::min(left, 1.0));
  }
  return false;
}

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

Listener Listener::open() {
  Listener listener;
  listener.socket = FileDescriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t length = sizeof any;
  const int fd = listener.socket.get();
  const bool ok = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0 && listen(fd, 1024) == 0 &&
                  getsockname(fd, reinterpret_cast<sockaddr*>(&any), &length) == 0;
  if (!ok) throw Error(fmt::format("the watchdog cannot listen on a TCP port: {}", std::strerror(errno)), ExitCode::io);
  const int port = ntohs(any.sin_port);
  listener.addresses.push_back(fmt::format("127.0.0.1:{}", port));
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) == 0) {
    for (const ifaddrs* i = list; i; i = i->ifa_next) {
      if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || i->ifa_flags & IFF_LOOPBACK || !(i->ifa_flags & IFF_UP)) continue;
      char text[INET_ADDRSTRLEN] = {};
      sockaddr_in address{};
      std::memcpy(&address, i->ifa_addr, sizeof address);
      inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
      listener.addresses.push_back(fmt::format("{}:{}", text, port));
    }
    freeifaddrs(list);
  }
  return listener;
}

Connection Listener::accept(double seconds) {
  if (!wait_ready(socket.get(), POLLIN, seconds)) return {};
  FileDescriptor peer(::accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return peer.valid() ? Connection(std::move(peer)) : Connection();
}

Connection connect_to(const std::string& address, double seconds) {
  const size_t colon = address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  if (inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr) != 1) return {};
  FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return {};
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    if (errno != EINPROGRESS || !wait_ready(socket.get(), POLLOUT, seconds)) return {};
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) return {};
  }
  return Connection(std::move(socket));
}

}  // namespace moba
