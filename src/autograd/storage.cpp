#include "src/autograd/allocator.h"
#include "src/autograd/device.h"

namespace moba {

std::shared_ptr<Storage> Storage::allocate(size_t bytes, Device device) {
  std::shared_ptr<Storage> storage(new Storage);
  const auto block = allocator_of(device).allocate(bytes);
  storage->data_ = block.data;
  storage->bytes_ = bytes;
  storage->block_bytes_ = block.bytes;
  storage->device_ = device;
  if (poison_fresh_memory()) {
    auto& backend = device_backend(device.type);
    backend.fill_bytes(block.data, 0xff, block.bytes, backend.current_stream(device.index));
  }
  return storage;
}

Storage::~Storage() {
  if (data_) allocator_of(device_).release({data_, block_bytes_}, bytes_);
}

MemoryStats memory_stats(Device device) { return allocator_of(device).stats(); }
void reset_peak_memory(Device device) { allocator_of(device).reset_peak(); }
void release_cached_memory(Device device) { allocator_of(device).release_cached(); }

}  // namespace moba
