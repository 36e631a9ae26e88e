#include "src/distributed/world.h"

#include <chrono>
#include <optional>
#include <random>
#include <thread>

#include "src/distributed/group_communicator.h"
#include "src/distributed/mpi.h"
#include "src/distributed/nccl.h"
#include "src/distributed/termination.h"
#include "src/distributed/watchdog.h"

namespace moba {
namespace {

// Waits at most that long; the thread may be inside a call that never returns.
bool done_within(const Work& work, double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (!work.done()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct Star {
  std::vector<std::string> hosts;
  std::vector<Connection> links;
};

// Rank 0 listens, the others connect; a token tells this run's connections from strangers'.
Star build_star(Communicator& all, double seconds) {
  const int rank = all.rank();
  Listener listener;
  nlohmann::json mine = {{"host", host_name()}};
  if (rank == 0) {
    listener = Listener::open();
    std::random_device random;
    mine["addresses"] = listener.addresses;
    mine["token"] = fmt::format("{:08x}{:08x}", random(), random());
  }
  Star star;
  nlohmann::json center;
  for (const std::string& text : all.all_gather_strings(mine.dump(), "hosts")) {
    const auto parsed = nlohmann::json::parse(text);
    if (center.is_null()) center = parsed;
    star.hosts.push_back(parsed.at("host"));
  }
  const std::string token = center.at("token");
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  const auto left = [&] { return std::max(0.0, std::chrono::duration<double>(end - Clock::now()).count()); };
  nlohmann::json message;
  if (rank == 0) {
    star.links.resize(static_cast<size_t>(all.size()));
    for (int missing = all.size() - 1; missing > 0;) {
      Connection link = listener.accept(std::min(left(), 1.0));
      if (left() <= 0)
        throw Error(fmt::format("{} ranks did not connect to rank 0's watchdog on {} ({}) within {:g} s: a firewall between the hosts?",
                                missing, star.hosts[0], fmt::join(listener.addresses, ", "), seconds),
                    ExitCode::rank_lost);
      if (!link.open() || !link.wait_for_message(message, std::min(left(), 5.0)) || message.value("token", "") != token) continue;
      const int r = message.value("rank", 0);
      if (r <= 0 || r >= all.size() || star.links[static_cast<size_t>(r)].open()) continue;
      link.send({{"type", "welcome"}, {"token", token}});
      star.links[static_cast<size_t>(r)] = std::move(link);
      --missing;
    }
    return star;
  }
  const std::vector<std::string> addresses = center.at("addresses");
  while (left() > 0) {
    for (const std::string& address : addresses) {
      const bool loopback = address.starts_with("127.");
      if (loopback && star.hosts[0] != star.hosts[static_cast<size_t>(rank)]) continue;
      Connection link = connect_to(address, std::min(left(), 3.0));
      if (!link.open()) continue;
      link.send({{"type", "hello"}, {"rank", rank}, {"token", token}});
      if (!link.wait_for_message(message, std::min(left(), 10.0)) || message.value("token", "") != token) continue;
      star.links.push_back(std::move(link));
      return star;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  throw Error(fmt::format("rank {} on {} cannot reach rank 0's watchdog on {} ({}): open TCP between the hosts", rank,
                          star.hosts[static_cast<size_t>(rank)], star.hosts[0], fmt::join(addresses, ", ")),
              ExitCode::rank_lost);
}

}  // namespace

struct World::Parts {
  std::shared_ptr<Service> service;
  std::function<void(const std::string&)> on_lost;
  std::unique_ptr<Communicator> communicator;  // of the backend asked for
  std::unique_ptr<Communicator> host;          // over MPI; the same one where communicator is null
  std::shared_ptr<Endpoint> nccl;
  std::unique_ptr<Watchdog> watchdog;
  std::optional<DeferTermination> defer;
  bool finished = false;

  ~Parts() {
    defer.reset();
    watchdog.reset();
    communicator.reset();
    host.reset();
    Service::retire(std::move(service));
  }
};

World::World() = default;
World::~World() = default;

std::unique_ptr<World> World::start(const Launch& launch, const WorldOptions& options) {
  MOBA_CHECK(options.time_limit_seconds > 0, "the time limit of a run of several ranks is {} s: it must be above 0",
             options.time_limit_seconds);
  MOBA_CHECK(options.backend == "mpi" || options.backend == "nccl", "backend '{}' is neither mpi nor nccl", options.backend);
  std::unique_ptr<World> world(new World);
  world->launch_ = launch;
  world->parts_ = std::make_unique<Parts>();
  if (launch.size == 1) {
    world->parts_->host = make_self_communicator();
    world->hosts_ = {host_name()};
    return world;
  }
  if (const char* missing = mpi_missing())
    throw Error(fmt::format("{} started this program as rank {} of {}, but {}", launch.by, launch.rank, launch.size, missing));
  world->start_ranks(options);
  return world;
}

void World::start_ranks(const WorldOptions& options) {
  Parts& parts = *parts_;
  const double limit = options.time_limit_seconds;
  const std::string here = fmt::format("rank {} of {} on {}", launch_.rank, launch_.size, host_name());
  const std::string again = fmt::format(" Exit code {}; start the same command again.", static_cast<int>(ExitCode::rank_lost));
  // mpirun sends SIGTERM when a rank has died; a scheduler to preempt the run, of which nothing has to be saved yet.
  const bool lost = launch_.by == "mpirun";
  std::optional<StartGuard> guard(
      std::in_place,
      fmt::format("{} was told to end (SIGTERM) at start, before all ranks had met{}", here,
                  lost ? ": another rank is lost, or mpirun was told to end." + again : "; the same command starts again"),
      lost ? ExitCode::rank_lost : ExitCode::preempted);
  parts.service = std::make_shared<Service>(limit);
  Service& service = *parts.service;
  const auto default_on_lost = [](const std::string& message) { end_process(message); };
  parts.on_lost = options.on_lost ? options.on_lost : default_on_lost;

  const auto mpi = std::make_shared<std::shared_ptr<Endpoint>>();  // outlives this call where MPI_Init hangs
  auto state = std::make_shared<Work::State>();
  state->name = "MPI_Init";
  service.submit(state, [mpi, &service, launch = launch_] {
    *mpi = start_mpi(launch);
    service.set_progress([endpoint = *mpi] { endpoint->progress(); });
  });
  if (!done_within(Work(state), limit)) {
    const std::string message = fmt::format("MPI did not start within {:g} s on {}: a rank is missing.{}", limit, here, again);
    parts.on_lost(message);
    throw Error(message, ExitCode::rank_lost);
  }
  Work(state).wait();
  parts.host = GroupCommunicator::world(parts.service, *mpi);

  Star star = build_star(*parts.host, limit);
  hosts_ = star.hosts;
  WatchdogOptions watch{launch_.rank, hosts_, limit, launch_.by,
                        [service = parts.service.get(), on_lost = parts.on_lost](const std::string& message) {
                          on_lost(message);
                          service->abandon();
                        }};
  parts.watchdog = std::make_unique<Watchdog>(std::move(watch), service.board(), std::move(star.links));
  parts.host->barrier("all ranks have met").wait();
  if (options.backend == "nccl") {
    parts.nccl = start_nccl(service, *parts.host, launch_);
    parts.communicator = GroupCommunicator::world(parts.service, parts.nccl);
  }
  guard.reset();
  parts.defer.emplace(parts.watchdog->wake_fd());
}

Communicator& World::communicator() const { return parts_->communicator ? *parts_->communicator : *parts_->host; }

void World::at(int64_t step, const char* phase) {
  if (!parts_->watchdog) return;
  parts_->service->board().at(step, phase);
  parts_->watchdog->poke();
}

void World::failed(const std::string& why) {
  if (parts_->watchdog) parts_->watchdog->failed(why);
}

void World::finish() {
  Parts& parts = *parts_;
  if (!parts.watchdog || parts.finished) return;
  parts.host->barrier("finish").wait();
  parts.watchdog->goodbye();
  parts.finished = true;
  auto state = std::make_shared<Work::State>();
  state->name = "MPI_Finalize";
  parts.service->submit(state, [service = parts.service.get(), nccl = parts.nccl] {
    if (nccl) nccl->close();
    service->set_progress({});
    finish_mpi();
  });
  if (!done_within(Work(state), parts.service->time_limit())) {
    const std::string message = fmt::format("MPI did not end within {:g} s on rank {}, {}. Exit code {}.", parts.service->time_limit(),
                                            launch_.rank, host(launch_.rank), static_cast<int>(ExitCode::rank_lost));
    parts.on_lost(message);
    throw Error(message, ExitCode::rank_lost);
  }
  Work(state).wait();
}

}  // namespace moba
