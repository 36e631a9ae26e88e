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
  int64_t first;
  SampleShare share;
  int64_t handed_out = 0;  // only the consumer touches it
  size_t ahead;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Fetched> queue;
  bool stop = false;
  std::thread thread;  // last: starts when the rest is there

  void run() {
    for (int64_t i = 0;; ++i) {
      Fetched fetched;
      try {
        fetched.sample = sampler->sample(share.sample(first, i));
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

Loader::Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, int64_t ahead, SampleShare share) : impl_(new Impl) {
  MOBA_ASSERT(sampler != nullptr && first_sample >= 0);
  MOBA_ASSERT(share.begin >= 0 && share.count >= 1 && share.begin + share.count <= share.period);
  impl_->sampler = std::move(sampler);
  impl_->first = first_sample;
  impl_->share = share;
  impl_->ahead = static_cast<size_t>(ahead < 1 ? 1 : ahead);
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
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
  ++impl_->handed_out;
  return sample;
}

int64_t Loader::position() const { return impl_->share.sample(impl_->first, impl_->handed_out); }

}  // namespace moba
