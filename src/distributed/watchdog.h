// Notices lost ranks and ends the others. A TCP star beside MPI, because a collective with a dead rank never returns: rank 0 holds a
// connection to every rank, each side sends a heartbeat with what it is doing. A connection that ends without a goodbye is a process
// that ended; silence is a process that is stopped; a collective that takes longer than the limit is one that somebody did not enter.
// Rank 0 tells its verdict to all; the loss of rank 0 is seen by every rank itself. A thread of its own: it works while the main
// thread computes and the communication thread is inside MPI.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/distributed/activity.h"
#include "src/distributed/connection.h"

namespace moba {

struct WatchdogOptions {
  int rank = 0;
  std::vector<std::string> hosts;  // by rank
  double time_limit_seconds = 600;
  std::string launcher;                                     // "mpirun", for the message when this rank's parent process ends before it
  std::function<void(const std::string& message)> on_lost;  // called once, on the watchdog's thread
};

class Watchdog {
 public:
  // links: on rank 0 the connections by rank (entry 0 unused), elsewhere one connection, to rank 0.
  Watchdog(WatchdogOptions options, ActivityBoard& board, std::vector<Connection> links);
  ~Watchdog();  // without goodbye() the others take this rank for lost
  Watchdog(const Watchdog&) = delete;

  void poke();     // the phase changed: tell the others soon
  void goodbye();  // this rank ends in order; returns when it is sent
  // This rank ends with an error of its own; returns when it is sent. The others end too, unless they say the same themselves
  // within a moment, as where all ranks find the same wrong number.
  void failed(const std::string& why);
  int wake_fd() const { return wake_.get(); }  // a handler of SIGTERM writes here

  static constexpr uint64_t kTerminated = uint64_t{1} << 32;  // what it writes

 private:
  struct Peer {
    int rank;
    Connection link;
    Clock::time_point heard;
    Activity activity;  // by its last heartbeat
    bool gone = false;  // said goodbye, or failed
  };
  void loop();
  void wait_for_events();
  void beat();
  void read(Peer& peer);
  void take(Peer& peer, const nlohmann::json& message);
  void check_silence();
  void check_collective();
  void judge_hung(const nlohmann::json& report);
  void check_failures();
  void check_terminated();
  void check_launcher();
  void resume_after_stop();
  void verdict(std::string what, bool relay = true);
  std::string silence() const;
  void to_all(const nlohmann::json& message);
  void say_and_wait(const nlohmann::json& message);
  std::string name(int rank) const;  // "rank 1 on node7"
  std::string own_place() const;
  std::string lost_sentence(int rank, const Activity& activity, const std::string& why) const;

  const WatchdogOptions options_;
  ActivityBoard& board_;
  std::vector<Peer> peers_;
  const double interval_;
  const pid_t parent_;
  FileDescriptor wake_;
  Clock::time_point last_beat_{}, last_loop_, resumed_, terminated_at_{};
  double stopped_seconds_ = 0;  // above 0 while it looks at what happened meanwhile
  bool poked_ = false, reported_ = false, terminated_ = false;
  struct Failure {
    std::string sentence;
    Clock::time_point at;
  };
  std::vector<Failure> failures_;
  std::mutex mutex_;
  std::condition_variable said_;
  nlohmann::json to_say_;                         // under mutex_
  std::atomic<bool> stop_{false}, quiet_{false};  // quiet: this rank ends by itself, whatever happens to the others
  std::thread thread_;
};

// The default answer to a loss: one write to stderr and _exit(rank_lost). No destructors: other threads are deep in MPI or in compute.
[[noreturn]] void end_process(const std::string& message);

}  // namespace moba
