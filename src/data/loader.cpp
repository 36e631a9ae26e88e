#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/common/check.h"
#include "src/data/sampler.h"

namespace moba {
namespace {

struct Fetched {
  Sample sample;
  std::exception_ptr error;  // in place of the sample
};

}  // namespace

struct Loader::Impl {
  std::shared_ptr<const Sampler> sampler;
  int64_t position;  // of the next sample handed out; only the consumer touches it
  size_t ahead;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Fetched> queue;
  bool stop = false;
  std::thread thread;  // last: starts when the rest is there

  void run(int64_t n) {
    for (;; ++n) {
      Fetched fetched;
      try {
        fetched.sample = sampler->sample(n);
      } catch (...) {
        fetched.error = std::current_exception();
      }
      const bool failed = fetched.error != nullptr;
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return stop || queue.size() < ahead; });
      if (stop) return;
      queue.push_back(std::move(fetched));
      changed.notify_all();
      if (failed) return;  // next() keeps rethrowing it
    }
  }
};

Loader::Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, int64_t ahead) : impl_(new Impl) {
  MOBA_ASSERT(sampler != nullptr && first_sample >= 0);
  impl_->sampler = std::move(sampler);
  impl_->position = first_sample;
  impl_->ahead = static_cast<size_t>(ahead < 1 ? 1 : ahead);
  impl_->thread = std::thread([impl = impl_.get(), first_sample] { impl->run(first_sample); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->changed.notify_all();
  impl_->thread.join();
}

Sample Loader::next() {
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return !impl_->queue.empty(); });
  Fetched& front = impl_->queue.front();
  if (front.error) std::rethrow_exception(front.error);
  Sample sample = std::move(front.sample);
  impl_->queue.pop_front();
  impl_->changed.notify_all();
  ++impl_->position;
  return sample;
}

int64_t Loader::position() const { return impl_->position; }

}  // namespace moba
