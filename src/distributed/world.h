// The ranks of one run: their communicator, and the watchdog that ends all of them when one is lost.
//
//   auto world = World::start(read_launch(), {});
//   world->at(step, "save");
//   world->communicator().all_reduce(...).wait();
//   world->finish();
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/distributed/communicator.h"
#include "src/distributed/launch.h"

namespace moba {

struct WorldOptions {
  double time_limit_seconds = 600;  // of every wait for another rank; longer than the longest save or evaluation of one rank alone
  // Called on a thread of its own when a rank is lost. Default: prints the message and ends the process at once with
  // ExitCode::rank_lost, since the main thread may be anywhere. If it returns, pending operations fail with Error(rank_lost).
  std::function<void(const std::string& message)> on_lost;
  std::string backend = "mpi";  // "mpi": host memory, "nccl": device memory (MPI starts it)
};

class World {
 public:
  // All ranks call it. One rank: no MPI, no threads. Error where MPI is missing or the ranks do not find each other.
  static std::unique_ptr<World> start(const Launch& launch, const WorldOptions& options);
  ~World();  // without finish(): the others take this rank for lost
  World(const World&) = delete;

  Communicator& communicator() const;
  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  const Launch& launch() const { return launch_; }
  const std::string& host(int rank) const { return hosts_[static_cast<size_t>(rank)]; }

  // What this rank does now, for messages: "load", "step", "save", "evaluation". Cheap.
  void at(int64_t step, const char* phase);
  // This rank is about to end with this error: the others end with exit code 6 and name it, except those that fail likewise.
  void failed(const std::string& why);
  // Orderly end; all ranks call it. The communicator and its splits end with it.
  void finish();

 private:
  World();
  struct Parts;  // communication thread, watchdog
  void start_ranks(const WorldOptions& options);
  Launch launch_;
  std::vector<std::string> hosts_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace moba
