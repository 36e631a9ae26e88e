// The communication thread: the only thread of a process that calls MPI or NCCL. Jobs run in the order in which they were issued.
// Every wait in it obeys the time limit; after one failure all later jobs fail with the same error.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "src/distributed/activity.h"
#include "src/distributed/endpoint.h"

namespace moba {

// Shared with every operation: is the thread that runs them alive?
struct ServiceHealth {
  double time_limit, grace;
  std::atomic<int64_t> alive_ns{0};
  double silent_seconds() const;
};

struct Work::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::exception_ptr error;
  double seconds = 0;        // from its start on the communication thread to its end
  std::string name;          // "all_reduce #55 'gradients, bucket 3'"
  std::vector<Tensor> held;  // buffers live until the operation ends
  std::shared_ptr<const ServiceHealth> health;
  void finish(std::exception_ptr e);  // called once
};

class Service {
 public:
  // grace: the watchdog speaks first, with the better message; the thread's own limit is for when it does not.
  explicit Service(double time_limit_seconds, double grace_seconds = 4);
  ~Service();
  Service(const Service&) = delete;

  using Job = std::function<void()>;
  void submit(std::shared_ptr<Work::State> state, Job job);
  // As submit(), but the job only starts an exchange that then goes on beside later jobs.
  void submit_start(std::shared_ptr<Work::State> state, std::function<std::unique_ptr<Exchange>()> start);
  void run(const char* name, Job job);  // submits and waits

  // On the communication thread.
  void finish(Exchange& exchange, const std::string& waiting_for);
  void set_progress(std::function<void()> progress) { progress_ = std::move(progress); }

  // Tags of the groups on this thread go by twos: collectives, point to point. The world has 0 and 1.
  int next_tag() const { return next_tag_; }
  void set_next_tag(int tag) { next_tag_ = tag; }

  ActivityBoard& board() { return board_; }
  double time_limit() const { return health_->time_limit; }
  // Jobs that have not run fail; the one under way gives up at its next look. Does not wait for a thread stuck inside MPI.
  void abandon();
  // Abandons and drops it; a thread that is stuck inside MPI is left behind, with what it uses.
  static void retire(std::shared_ptr<Service> service);

 private:
  struct Item {
    std::shared_ptr<Work::State> state;
    Job job;
    std::function<std::unique_ptr<Exchange>()> start;
  };
  struct Posted {
    std::shared_ptr<Work::State> state;
    std::unique_ptr<Exchange> exchange;
    Clock::time_point since;
  };
  void push(Item item);
  void loop();
  bool next(Item& item);  // false: abandoned
  void execute(Item& item);
  void poll_posted();
  void alive();
  [[noreturn]] void time_out(const std::string& what) const;

  const std::shared_ptr<ServiceHealth> health_ = std::make_shared<ServiceHealth>();
  ActivityBoard board_;
  std::function<void()> progress_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> queue_;
  std::atomic<int> queued_{0};
  std::atomic<bool> abandoned_{false}, ended_{false};
  std::atomic<int> next_tag_{2};
  std::list<Posted> posted_;   // communication thread only
  std::exception_ptr broken_;  // communication thread only
  std::thread thread_;
};

}  // namespace moba
