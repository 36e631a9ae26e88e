// Host memory. Large blocks are mapped one by one, aligned for huge pages, so that releasing one gives it back to the system.
#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "src/autograd/device.h"

namespace moba {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMappedFrom = size_t{1} << 20;  // smaller blocks come from malloc
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;
constexpr int64_t kCopyPiece = int64_t{1} << 20;

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

void* map_aligned(size_t bytes) {
  const size_t length = round_up(bytes, kPage);
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapped = mmap(nullptr, length + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (!slack) return mapped;
  char* begin = static_cast<char*>(mapped);
  const size_t skip = round_up(reinterpret_cast<size_t>(begin), kHugePage) - reinterpret_cast<size_t>(begin);
  if (skip) munmap(begin, skip);
  if (slack - skip) munmap(begin + skip + length, slack - skip);
  madvise(begin + skip, length, MADV_HUGEPAGE);
  return begin + skip;
}

class CpuBackend final : public DeviceBackend {
 public:
  int count() const override { return 1; }
  std::string description() const override { return "CPU"; }

  void* allocate(size_t bytes, int) override {
    void* data = bytes >= kMappedFrom ? map_aligned(bytes) : std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
    if (!data) throw OutOfMemory(fmt::format("out of memory: the system refused {} bytes", bytes));
    return data;
  }

  void release(void* data, size_t bytes, int) override {
    if (bytes >= kMappedFrom)
      munmap(data, round_up(bytes, kPage));
    else
      std::free(data);
  }

  void fill_bytes(void* data, int value, size_t bytes, const kernels::Stream&) override {
    char* to = static_cast<char*>(data);
    parallel_for(static_cast<int64_t>(bytes), kCopyPiece,
                 [&](int64_t begin, int64_t end) { std::memset(to + begin, value, static_cast<size_t>(end - begin)); });
  }

  void copy(void* to, const void* from, size_t bytes, const kernels::Stream&) override {
    char* d = static_cast<char*>(to);
    const char* s = static_cast<const char*>(from);
    parallel_for(static_cast<int64_t>(bytes), kCopyPiece,
                 [&](int64_t begin, int64_t end) { std::memcpy(d + begin, s + begin, static_cast<size_t>(end - begin)); });
  }

  void copy_from_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) override { copy(to, from, bytes, stream); }
  void copy_to_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) override { copy(to, from, bytes, stream); }
  kernels::Stream current_stream(int) override { return {}; }
  void synchronize(int) override {}
};

}  // namespace

DeviceBackend& cpu_backend() {
  static CpuBackend backend;
  return backend;
}

}  // namespace moba
