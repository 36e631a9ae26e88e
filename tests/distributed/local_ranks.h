// Ranks as threads of one process, with a transport of mailboxes: collectives and failures without MPI, fast, and under the thread
// sanitizer.
#pragma once
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>

#include "src/distributed/group_communicator.h"

namespace moba::test {

class Mailboxes {
 public:
  using Key = std::tuple<int, int, int>;  // from, to, tag
  void put(Key key, std::vector<char> message) {
    std::lock_guard lock(mutex_);
    boxes_[key].push_back(std::move(message));
  }
  bool take(Key key, std::vector<char>& message) {
    std::lock_guard lock(mutex_);
    auto& box = boxes_[key];
    if (box.empty()) return false;
    message = std::move(box.front());
    box.pop_front();
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::deque<std::vector<char>>> boxes_;
};

class LocalEndpoint final : public Endpoint {
 public:
  LocalEndpoint(Mailboxes& boxes, int rank, int size) : boxes_(boxes), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* backend() const override { return "local"; }
  std::unique_ptr<Exchange> start(std::span<const Message> sends, std::span<const Message> receives, int tag) override {
    for (const Message& m : sends) boxes_.put({rank_, m.peer, tag}, {static_cast<char*>(m.data), static_cast<char*>(m.data) + m.bytes});
    return std::make_unique<Receives>(*this, receives, tag);
  }

 private:
  struct Receives final : Exchange {
    Receives(LocalEndpoint& e, std::span<const Message> receives, int tag)
        : endpoint(e), left(receives.begin(), receives.end()), tag(tag) {}
    bool done() override {
      std::vector<char> message;
      while (!left.empty() && endpoint.boxes_.take({left.front().peer, endpoint.rank_, tag}, message)) {
        if (static_cast<int64_t>(message.size()) != left.front().bytes) throw Error("sizes of a message differ");
        std::memcpy(left.front().data, message.data(), message.size());
        left.pop_front();
      }
      return left.empty();
    }
    LocalEndpoint& endpoint;
    std::deque<Message> left;
    int tag;
  };
  Mailboxes& boxes_;
  int rank_, size_;
};

// f(communicator, service) on every rank, each a thread.
template <class F>
void on_ranks(int size, F f, double time_limit = 60, double grace = 4) {
  Mailboxes boxes;
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      const auto service = std::make_shared<Service>(time_limit, grace);
      const auto communicator = GroupCommunicator::world(service, std::make_shared<LocalEndpoint>(boxes, r, size));
      f(*communicator, *service);
    });
  }
  for (std::thread& t : threads) t.join();
}

}  // namespace moba::test
