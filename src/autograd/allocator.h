// The caching allocator of one device. Freed blocks are kept and handed out again to requests of about their size (best fit
// with a bounded waste, no splitting), so a training step stops asking the system after its first pass.
//
// Bound on memory: before a new block is taken from the device, cached blocks are given back, oldest first, as long as the
// total would exceed 9/8 of the largest amount ever in use plus 32 MiB. Sizes that change from step to step therefore cannot
// pile up dead blocks.
#pragma once
#include <map>
#include <mutex>

#include "src/autograd/tensor.h"

namespace moba {

class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  struct Block {
    void* data = nullptr;
    size_t bytes = 0;  // size of the block, at least what was asked for
  };
  Block allocate(size_t bytes);
  void release(Block block, size_t requested);
  void release_cached();
  MemoryStats stats() const;
  void reset_peak();

 private:
  struct Cached {
    void* data;
    uint64_t freed_at;
  };
  using Cache = std::multimap<size_t, Cached>;

  bool take_cached(size_t bytes, Block* block);
  void make_room(size_t bytes);
  void give_back(Cache::iterator block);

  const Device device_;
  mutable std::mutex mutex_;
  Cache cache_;
  MemoryStats stats_;
  int64_t in_use_ = 0, most_in_use_ = 0;  // bytes of blocks handed out; most_in_use_ is never reset
  uint64_t clock_ = 0;
};

// The allocator of a device; lives until the process ends, so that storages of static lifetime can be freed.
CachingAllocator& allocator_of(Device device);

// Test hook, also MOBA_POISON=1 in the environment: every block is filled with bytes 0xff when handed out (NaN in any float
// type, -1 in signed integers), so that a read of memory nobody wrote shows.
void set_poison_fresh_memory(bool on);
bool poison_fresh_memory();

}  // namespace moba
