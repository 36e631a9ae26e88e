#include "src/autograd/allocator.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "src/autograd/device.h"

namespace moba {
namespace {

constexpr size_t kSmallest = 64;
constexpr size_t kClassesPerOctave = 16;  // rounding wastes at most 1/16
constexpr size_t kWasteShare = 8;         // a cached block may exceed the request by 1/8
constexpr int64_t kSlack = int64_t{32} << 20;

size_t size_class(size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  const size_t step = std::max(std::bit_floor(bytes) / kClassesPerOctave, kSmallest);
  return (bytes + step - 1) / step * step;
}

std::atomic<bool>& poison_flag() {
  static std::atomic<bool> flag = [] {
    const char* set = std::getenv("MOBA_POISON");
    return set && *set && std::strcmp(set, "0") != 0;
  }();
  return flag;
}

}  // namespace

CachingAllocator::Block CachingAllocator::allocate(size_t bytes) {
  const size_t wanted = size_class(bytes);
  std::lock_guard lock(mutex_);
  Block block;
  if (!take_cached(wanted, &block)) {
    make_room(wanted);
    block = {device_backend(device_.type).allocate(wanted, device_.index), wanted};
    stats_.reserved += static_cast<int64_t>(wanted);
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  }
  in_use_ += static_cast<int64_t>(block.bytes);
  most_in_use_ = std::max(most_in_use_, in_use_);
  stats_.allocated += static_cast<int64_t>(bytes);
  stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  return block;
}

bool CachingAllocator::take_cached(size_t bytes, Block* block) {
  const auto best = cache_.lower_bound(bytes);
  if (best == cache_.end() || best->first > bytes + bytes / kWasteShare) return false;
  *block = {best->second.data, best->first};
  cache_.erase(best);
  return true;
}

void CachingAllocator::make_room(size_t bytes) {
  const int64_t after = std::max(most_in_use_, in_use_ + static_cast<int64_t>(bytes));
  const int64_t limit = after + after / 8 + kSlack;
  while (!cache_.empty() && stats_.reserved + static_cast<int64_t>(bytes) > limit)
    give_back(
        std::min_element(cache_.begin(), cache_.end(), [](const auto& a, const auto& b) { return a.second.freed_at < b.second.freed_at; }));
}

void CachingAllocator::give_back(Cache::iterator block) {
  device_backend(device_.type).release(block->second.data, block->first, device_.index);
  stats_.reserved -= static_cast<int64_t>(block->first);
  cache_.erase(block);
}

void CachingAllocator::release(Block block, size_t requested) {
  std::lock_guard lock(mutex_);
  cache_.emplace(block.bytes, Cached{block.data, clock_++});
  in_use_ -= static_cast<int64_t>(block.bytes);
  stats_.allocated -= static_cast<int64_t>(requested);
}

void CachingAllocator::release_cached() {
  std::lock_guard lock(mutex_);
  while (!cache_.empty()) give_back(cache_.begin());
}

MemoryStats CachingAllocator::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak_allocated = stats_.allocated;
  stats_.peak_reserved = stats_.reserved;
}

CachingAllocator& allocator_of(Device device) {
  static std::mutex mutex;
  static auto* all = new std::map<std::pair<DeviceType, int>, std::unique_ptr<CachingAllocator>>;
  std::lock_guard lock(mutex);
  auto& one = (*all)[{device.type, device.index}];
  if (!one) one = std::make_unique<CachingAllocator>(device);
  return *one;
}

void set_poison_fresh_memory(bool on) { poison_flag() = on; }
bool poison_fresh_memory() { return poison_flag(); }

}  // namespace moba
