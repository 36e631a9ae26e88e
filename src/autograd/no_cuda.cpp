// The CUDA backend of a build without CUDA.
#include "kernels/common/check.h"
#include "src/autograd/device.h"

namespace moba {
namespace {

[[noreturn]] void refuse() { throw Error("this build has no CUDA: configure with preset cuda"); }

class NoCuda final : public DeviceBackend {
 public:
  int count() const override { return 0; }
  std::string description() const override { return "built without CUDA"; }
  void* allocate(size_t, int) override { refuse(); }
  void release(void*, size_t, int) override { refuse(); }
  void fill_bytes(void*, int, size_t, const kernels::Stream&) override { refuse(); }
  void copy(void*, const void*, size_t, const kernels::Stream&) override { refuse(); }
  void copy_from_host(void*, const void*, size_t, const kernels::Stream&) override { refuse(); }
  void copy_to_host(void*, const void*, size_t, const kernels::Stream&) override { refuse(); }
  kernels::Stream current_stream(int) override { refuse(); }
  void synchronize(int) override { refuse(); }
};

}  // namespace

DeviceBackend& cuda_backend() {
  static NoCuda backend;
  return backend;
}

}  // namespace moba
