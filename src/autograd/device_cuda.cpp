// Device memory, copies and streams of CUDA. Compiled under preset cuda; it has not run on a GPU.
// Without a driver every runtime call fails with one code; count() is then 0 and nothing else is called.
#include <cuda_runtime_api.h>

#include "kernels/common/check.h"
#include "src/autograd/device.h"

namespace moba {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw Error(fmt::format("CUDA: {} failed: {} ({})", what, cudaGetErrorString(status), static_cast<int>(status)), ExitCode::io);
}

void use(int index) { check(cudaSetDevice(index), "cudaSetDevice"); }

cudaStream_t handle(const kernels::Stream& stream) { return static_cast<cudaStream_t>(stream.handle); }

class CudaBackend final : public DeviceBackend {
 public:
  CudaBackend() { status_ = cudaGetDeviceCount(&count_); }

  int count() const override { return status_ == cudaSuccess ? count_ : 0; }

  std::string description() const override {
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    const std::string versions = fmt::format("CUDA runtime {}.{}, driver {}", runtime / 1000, runtime % 1000 / 10,
                                             driver ? fmt::format("{}.{}", driver / 1000, driver % 1000 / 10) : "none");
    if (status_ != cudaSuccess) return fmt::format("{}, no usable GPU ({})", versions, cudaGetErrorString(status_));
    return fmt::format("{}, {} GPU{}", versions, count_, count_ == 1 ? "" : "s");
  }

  void* allocate(size_t bytes, int index) override {
    use(index);
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    MOBA_CHECK(status == cudaSuccess, "out of GPU memory: cuda:{} refused {} bytes ({}); use a smaller train.micro_batch_size", index,
               bytes, cudaGetErrorString(status));
    return data;
  }

  void release(void* data, size_t, int index) override {
    use(index);
    check(cudaFree(data), "cudaFree");
  }

  void fill_bytes(void* data, int value, size_t bytes, const kernels::Stream& stream) override {
    use(stream.index);
    check(cudaMemsetAsync(data, value, bytes, handle(stream)), "cudaMemsetAsync");
  }

  void copy(void* to, const void* from, size_t bytes, const kernels::Stream& stream) override {
    use(stream.index);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, handle(stream)), "copy on the device");
  }

  void copy_from_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) override {
    use(stream.index);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, handle(stream)), "copy to the device");
    check(cudaStreamSynchronize(handle(stream)), "copy to the device");
  }

  void copy_to_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) override {
    use(stream.index);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, handle(stream)), "copy from the device");
    check(cudaStreamSynchronize(handle(stream)), "copy from the device");
  }

  // The legacy default stream of each device: one queue, so that work of different ops stays in order.
  kernels::Stream current_stream(int index) override { return {DeviceType::cuda, index, nullptr}; }

  void synchronize(int index) override {
    use(index);
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

 private:
  int count_ = 0;
  cudaError_t status_ = cudaSuccess;
};

}  // namespace

DeviceBackend& cuda_backend() {
  static CudaBackend backend;
  return backend;
}

}  // namespace moba
