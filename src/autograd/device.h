// The device seam: everything tensor code asks of a device that is not a kernel. One backend per device type; a build
// without CUDA links no_cuda.cpp, whose backend counts no devices and refuses the rest.
#pragma once
#include <string>

#include "kernels/common/dispatch.h"

namespace moba {

class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;
  virtual int count() const = 0;
  virtual std::string description() const = 0;  // what was found, for people: "CUDA runtime 13.0, no usable GPU (...)"
  // Memory aligned to 64 bytes or more, contents undefined; Error when the device has none left.
  virtual void* allocate(size_t bytes, int index) = 0;
  virtual void release(void* data, size_t bytes, int index) = 0;  // bytes as allocated
  // Work is ordered on `stream`; copies to and from the host return when the host memory may be used again.
  virtual void fill_bytes(void* data, int value, size_t bytes, const kernels::Stream& stream) = 0;
  virtual void copy(void* to, const void* from, size_t bytes, const kernels::Stream& stream) = 0;
  virtual void copy_from_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) = 0;
  virtual void copy_to_host(void* to, const void* from, size_t bytes, const kernels::Stream& stream) = 0;
  virtual kernels::Stream current_stream(int index) = 0;
  virtual void synchronize(int index) = 0;  // waits for everything queued on the device
};

DeviceBackend& cpu_backend();
DeviceBackend& cuda_backend();
inline DeviceBackend& device_backend(DeviceType type) { return type == DeviceType::cuda ? cuda_backend() : cpu_backend(); }

}  // namespace moba
