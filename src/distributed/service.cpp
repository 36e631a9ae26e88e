#include "src/distributed/service.h"

#include <fmt/format.h>
#include <sys/prctl.h>

namespace moba {
namespace {

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

// Looks often at first, for latency, then sleeps, so that waiting ranks leave the cores to those that compute.
class Backoff {
 public:
  void pause() {
    const double waited = seconds_since(begin_);
    if (waited < 20e-6) return;
    if (waited < 60e-6) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(waited < 2e-3 ? 10 : waited < 50e-3 ? 50 : 500));
    }
  }
  double waited() const { return seconds_since(begin_); }

 private:
  const Clock::time_point begin_ = Clock::now();
};

}  // namespace

void Work::State::finish(std::exception_ptr e) {
  {
    std::lock_guard lock(mutex);
    error = std::move(e);
    done = true;
    held.clear();
  }
  changed.notify_all();
}

Service::Service(double time_limit_seconds, double grace_seconds) {
  health_->time_limit = time_limit_seconds;
  health_->grace = grace_seconds;
  alive();
  thread_ = std::thread([this] { loop(); });
}

Service::~Service() {
  abandon();
  thread_.join();
}

void Service::alive() { health_->alive_ns.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed); }

double ServiceHealth::silent_seconds() const {
  return seconds_since(Clock::time_point(Clock::duration(alive_ns.load(std::memory_order_relaxed))));
}

void Service::push(Item item) {
  {
    std::lock_guard lock(mutex_);
    if (!abandoned_) {
      queue_.push_back(std::move(item));
      queued_.fetch_add(1);
      wake_.notify_one();
      return;
    }
  }
  item.state->finish(std::make_exception_ptr(Error("communication has ended", ExitCode::rank_lost)));
}

void Service::submit(std::shared_ptr<Work::State> state, Job job) {
  state->health = health_;
  push({std::move(state), std::move(job), {}});
}

void Service::submit_start(std::shared_ptr<Work::State> state, std::function<std::unique_ptr<Exchange>()> start) {
  state->health = health_;
  push({std::move(state), {}, std::move(start)});
}

void Service::run(const char* name, Job job) {
  auto state = std::make_shared<Work::State>();
  state->name = name;
  submit(state, std::move(job));
  Work(state).wait();
}

void Service::abandon() {
  std::deque<Item> left;
  {
    std::lock_guard lock(mutex_);
    abandoned_ = true;
    left.swap(queue_);
    queued_.store(0);
    wake_.notify_one();
  }
  for (Item& item : left) item.state->finish(std::make_exception_ptr(Error("communication was abandoned", ExitCode::rank_lost)));
}

void Service::retire(std::shared_ptr<Service> service) {
  if (!service) return;
  service->abandon();
  for (int i = 0; i < 500 && !service->ended_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  if (!service->ended_) new std::shared_ptr<Service>(std::move(service));
}

bool Service::next(Item& item) {
  for (Backoff backoff; queued_.load() == 0 && backoff.waited() < 50e-6 && !abandoned_;) poll_posted();
  std::unique_lock lock(mutex_);
  while (queue_.empty()) {
    if (abandoned_) return false;
    // MPI may hold back the end of a message that it has reported as sent, so the thread looks in even when it has nothing to do.
    wake_.wait_for(lock, posted_.empty() ? std::chrono::microseconds(10000) : std::chrono::microseconds(50));
    if (!queue_.empty()) break;
    lock.unlock();
    alive();
    poll_posted();
    if (progress_ && !broken_) progress_();
    lock.lock();
  }
  item = std::move(queue_.front());
  queue_.pop_front();
  queued_.fetch_sub(1);
  return true;
}

void Service::loop() {
  prctl(PR_SET_TIMERSLACK, 1000UL);  // ns: sleeps of 10 us would take 60
  for (;;) {
    Item item;
    if (!next(item)) break;
    alive();
    execute(item);
  }
  for (Posted& p : posted_) p.state->finish(std::make_exception_ptr(Error("communication was abandoned", ExitCode::rank_lost)));
  // The buffers of messages under way are left to MPI: their exchanges are forgotten, not freed.
  for (Posted& p : posted_) p.exchange.release();
  ended_ = true;
}

void Service::execute(Item& item) {
  std::exception_ptr error = broken_;
  const Clock::time_point begin = Clock::now();
  try {
    if (!error && item.start) {
      posted_.push_back({item.state, item.start(), Clock::now()});
      poll_posted();
      return;
    }
    if (!error) item.job();
  } catch (...) {
    error = broken_ = std::current_exception();
    // Where a rank died, the watchdog knows more than the library's error: it gets the time to speak first.
    for (int i = 0; i < 50 && !abandoned_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  item.job = {};
  item.state->seconds = seconds_since(begin);
  item.state->finish(error);
}

void Service::poll_posted() {
  for (auto p = posted_.begin(); p != posted_.end();) {
    std::exception_ptr error = broken_;
    try {
      if (!error && !p->exchange->done()) {
        if (seconds_since(p->since) > health_->time_limit + health_->grace) time_out(p->state->name);
        ++p;
        continue;
      }
    } catch (...) {
      error = broken_ = std::current_exception();
    }
    if (error) p->exchange.release();  // still known to MPI
    p->state->seconds = seconds_since(p->since);
    p->state->finish(error);
    p = posted_.erase(p);
  }
}

void Service::time_out(const std::string& what) const {
  throw Error(fmt::format("{} did not end within {:g} s: a rank is lost or far behind", what, health_->time_limit), ExitCode::rank_lost);
}

void Service::finish(Exchange& exchange, const std::string& waiting_for) {
  Backoff backoff;
  for (int looks = 0; !exchange.done(); ++looks) {
    if (!posted_.empty()) poll_posted();
    backoff.pause();
    if (looks % 64 != 63) continue;
    alive();
    if (abandoned_) throw Error(fmt::format("{} was abandoned", waiting_for), ExitCode::rank_lost);
    if (backoff.waited() > health_->time_limit + health_->grace) time_out(waiting_for);
  }
}

void Work::wait() const {
  if (!state_) return;
  std::unique_lock lock(state_->mutex);
  while (!state_->done) {
    state_->changed.wait_for(lock, std::chrono::milliseconds(500));
    if (state_->done) break;
    const ServiceHealth& health = *state_->health;
    // The thread looks at the clock while it waits for others; silence means that it hangs inside the library.
    if (health.silent_seconds() > health.time_limit + 2 * health.grace)
      throw Error(fmt::format("{} did not end within {:g} s: the communication library does not answer", state_->name, health.time_limit),
                  ExitCode::rank_lost);
  }
  if (state_->error) std::rethrow_exception(state_->error);
}

double Work::seconds() const { return done() && state_ ? state_->seconds : 0; }

bool Work::done() const {
  if (!state_) return true;
  std::lock_guard lock(state_->mutex);
  return state_->done;
}

}  // namespace moba
