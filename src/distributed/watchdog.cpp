#include "src/distributed/watchdog.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "kernels/common/check.h"

namespace moba {
namespace {

using nlohmann::json;

constexpr double kFailureGraceSeconds = 0.5;  // for ranks that find the same error; mpirun ends all a second after the first
constexpr double kTerminationSeconds = 0.5;   // SIGTERM waits this long for a reason; mpirun sends SIGKILL up to one second after it
constexpr double kPokedBeatSeconds = 0.02;

double since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

json to_json(const Activity& a) {
  return {{"type", "beat"}, {"step", a.step},   {"phase", a.phase},   {"running", a.running}, {"kind", a.kind},
          {"what", a.what}, {"group", a.group}, {"number", a.number}, {"entered", a.entered}};
}

Activity to_activity(const json& j) {
  Activity a;
  a.step = j.value("step", int64_t{-1});
  a.phase = j.value("phase", "");
  a.running = j.value("running", false);
  a.kind = j.value("kind", "");
  a.what = j.value("what", "");
  a.group = j.value("group", "");
  a.number = j.value("number", int64_t{0});
  a.entered = j.value("entered", std::map<std::string, int64_t>());
  return a;
}

}  // namespace

void end_process(const std::string& message) {
  const std::string line = message + "\n";
  [[maybe_unused]] const ssize_t n = ::write(2, line.data(), line.size());
  _exit(static_cast<int>(ExitCode::rank_lost));
}

Watchdog::Watchdog(WatchdogOptions options, ActivityBoard& board, std::vector<Connection> links)
    : options_(std::move(options)),
      board_(board),
      interval_(std::clamp(options_.time_limit_seconds / 10, 0.05, 1.0)),
      parent_(getppid()),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      last_loop_(Clock::now()),
      resumed_(Clock::now()) {
  for (size_t r = 0; r < links.size(); ++r) {
    if (options_.rank == 0 && r == 0) continue;
    peers_.push_back({options_.rank == 0 ? static_cast<int>(r) : 0, std::move(links[r]), Clock::now(), {}});
  }
  thread_ = std::thread([this] { loop(); });
}

Watchdog::~Watchdog() {
  stop_ = true;
  poke();
  thread_.join();
}

void Watchdog::poke() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void Watchdog::say_and_wait(const json& message) {
  std::unique_lock lock(mutex_);
  to_say_ = message;
  poke();
  said_.wait_for(lock, std::chrono::seconds(1), [&] { return to_say_.is_null(); });
}

void Watchdog::goodbye() { say_and_wait({{"type", "goodbye"}}); }

void Watchdog::failed(const std::string& why) {
  quiet_ = true;
  say_and_wait({{"type", "failed"}, {"rank", options_.rank}, {"text", lost_sentence(options_.rank, board_.read(), why)}});
}

std::string Watchdog::name(int rank) const { return fmt::format("rank {} on {}", rank, options_.hosts[static_cast<size_t>(rank)]); }

std::string Watchdog::own_place() const {
  const Activity a = board_.read();
  std::string text = name(options_.rank) + " was in ";
  if (!a.running) return text + a.place();
  return text + a.collective() + (a.step < 0 ? fmt::format(" ({})", a.phase) : fmt::format(" of step {}", a.step));
}

std::string Watchdog::lost_sentence(int rank, const Activity& activity, const std::string& why) const {
  std::string place = activity.place();
  if (activity.running) place += ", in " + activity.collective();
  return fmt::format("{} is lost: {} ({})", name(rank), why, place);
}

void Watchdog::to_all(const json& message) {
  for (Peer& p : peers_) p.link.send(message);
}

void Watchdog::loop() {
  while (!stop_) {
    wait_for_events();
    resume_after_stop();
    last_loop_ = Clock::now();
    {
      std::lock_guard lock(mutex_);
      if (!to_say_.is_null()) {
        to_all(to_say_);
        to_say_ = nullptr;
        said_.notify_all();
      }
    }
    if (since(last_beat_) >= (poked_ ? std::min(kPokedBeatSeconds, interval_) : interval_)) beat();
    for (Peer& p : peers_) {
      p.link.flush();
      read(p);
    }
    if (quiet_) continue;
    check_failures();
    check_silence();
    check_collective();
    check_terminated();
    check_launcher();
  }
}

// A gap means that this process itself was stopped: the others' silence is then its own. If they are gone, they ended because of it.
void Watchdog::resume_after_stop() {
  const double gap = since(last_loop_);
  if (gap <= std::max(1.0, options_.time_limit_seconds / 2)) return;
  stopped_seconds_ = gap;
  for (Peer& p : peers_) read(p);
  stopped_seconds_ = 0;
  resumed_ = Clock::now();
  for (Peer& p : peers_) p.heard = resumed_;
}

void Watchdog::wait_for_events() {
  std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}};
  for (Peer& p : peers_) {
    if (p.link.open()) fds.push_back({p.link.fd(), static_cast<short>(POLLIN | (p.link.has_output() ? POLLOUT : 0)), 0});
  }
  const bool hurry = poked_ || terminated_ || !failures_.empty();
  const double next = (hurry ? std::min(kPokedBeatSeconds, interval_) : interval_) - since(last_beat_);
  poll(fds.data(), fds.size(), static_cast<int>(std::clamp(next * 1000, 1.0, 1000.0)));
  uint64_t value = 0;
  if (::read(wake_.get(), &value, sizeof value) == sizeof value) {
    poked_ = true;
    if (value >= kTerminated && !terminated_) {
      terminated_ = true;
      terminated_at_ = Clock::now();
    }
  }
}

void Watchdog::beat() {
  last_beat_ = Clock::now();
  poked_ = false;
  const json message = to_json(board_.read());
  for (Peer& p : peers_) {
    if (!p.link.congested()) p.link.send(message);
  }
}

void Watchdog::read(Peer& peer) {
  if (!peer.link.open()) return;
  // A stopped rank may be seen by its end: mpirun ends it as soon as one rank has noticed.
  const bool silent = since(peer.heard) > 0.9 * options_.time_limit_seconds;
  for (const json& message : peer.link.receive()) take(peer, message);
  if (peer.link.open() || peer.gone) return;
  // Rank 0 may have ended because of a failure that it reported before.
  verdict(!failures_.empty() ? failures_.front().sentence
                             : lost_sentence(peer.rank, peer.activity, silent ? silence() : "its process ended"));
}

void Watchdog::take(Peer& peer, const json& message) {
  peer.heard = Clock::now();
  const std::string type = message.value("type", "");
  if (type == "beat") {
    peer.activity = to_activity(message);
  } else if (type == "goodbye") {
    peer.gone = true;
  } else if (type == "failed") {
    if (message.value("rank", 0) == peer.rank) peer.gone = true;
    failures_.push_back({message.value("text", ""), Clock::now()});
    if (options_.rank == 0) to_all(message);
  } else if (type == "hung") {
    if (options_.rank == 0) judge_hung(message);
  } else if (type == "lost") {
    verdict(message.value("text", ""), false);
  }
}

std::string Watchdog::silence() const {
  return fmt::format("it has not answered for {:g} s (stopped, or its host is down)", options_.time_limit_seconds);
}

void Watchdog::check_silence() {
  for (const Peer& p : peers_) {
    if (!p.gone && since(p.heard) > options_.time_limit_seconds) verdict(lost_sentence(p.rank, p.activity, silence()));
  }
}

void Watchdog::check_collective() {
  if (reported_) return;
  const Activity a = board_.read();
  // Two beats later than the limit: a rank that is silent is better called silent.
  if (!a.running || since(std::max(a.since, resumed_)) < options_.time_limit_seconds + 2 * interval_) return;
  reported_ = true;
  const json report = {
      {"type", "hung"},        {"group", a.group},  {"number", a.number}, {"members", a.members}, {"collective", a.collective()},
      {"rank", options_.rank}, {"place", a.place()}};
  if (options_.rank == 0)
    judge_hung(report);
  else
    to_all(report);
}

void Watchdog::judge_hung(const json& report) {
  const auto group = report.value("group", "");
  const auto number = report.value("number", int64_t{0});
  const auto collective = report.value("collective", "");
  const auto entered = [&](const Activity& a) {
    const auto found = a.entered.find(group);
    return found != a.entered.end() && found->second >= number;
  };
  std::vector<int> missing;
  std::string first;
  for (int rank : report.value("members", std::vector<int>())) {
    const auto peer = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.rank == rank; });
    const Activity activity = peer == peers_.end() ? board_.read() : peer->activity;
    if (entered(activity)) continue;
    if (missing.empty())
      first = lost_sentence(rank, activity, fmt::format("it did not enter {} within {:g} s", collective, options_.time_limit_seconds));
    missing.push_back(rank);
  }
  if (missing.empty())
    first = fmt::format("{} of {} did not end within {:g} s though all ranks entered it ({})", collective, name(report.value("rank", 0)),
                        options_.time_limit_seconds, report.value("place", ""));
  if (missing.size() > 1) first += fmt::format("; neither did ranks {}", fmt::join(missing.begin() + 1, missing.end(), ", "));
  verdict(first);
}

void Watchdog::check_failures() {
  for (const Failure& f : failures_) {
    if (since(f.at) > kFailureGraceSeconds || terminated_) return verdict(f.sentence);
  }
}

// SIGTERM came while nobody handles it: mpirun sends it when a rank has died. The reason is on its way; without one, obey.
void Watchdog::check_terminated() {
  if (!terminated_ || since(terminated_at_) < kTerminationSeconds) return;
  signal(SIGTERM, SIG_DFL);
  raise(SIGTERM);
}

// Ranks without the launcher cannot be stopped through it, and would go on writing beside a new start of the same run.
void Watchdog::check_launcher() {
  if (getppid() == parent_) return;
  const std::string& host = options_.hosts[static_cast<size_t>(options_.rank)];
  verdict(fmt::format("process {} on {}, of {}, ended before its ranks", parent_, host, options_.launcher));
}

void Watchdog::verdict(std::string what, bool relay) {
  if (stop_ || quiet_) return;
  quiet_ = true;
  if (stopped_seconds_ > 0) {
    what = lost_sentence(options_.rank, board_.read(), fmt::format("it was stopped for {:.1f} s and the others ended", stopped_seconds_));
    relay = false;
  }
  if (relay && options_.rank == 0) {
    to_all({{"type", "lost"}, {"text", what}});
    // No waiting until they have read it: mpirun kills all soon after the first has ended. Unread input would turn the end of this
    // process into a reset that may overtake the verdict.
    for (Peer& p : peers_) p.link.receive();
  }
  options_.on_lost(fmt::format("{}; {}. Exit code {}; start the same command again to resume from the last checkpoint.", what, own_place(),
                               static_cast<int>(ExitCode::rank_lost)));
}

}  // namespace moba
