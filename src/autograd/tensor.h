// Tensor = reference-counted storage + shape + dtype + device. Always contiguous, row-major; a view shares storage
// (reshape, or a range of the first dimension). No autograd here: see variable.h.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/types.h"

namespace moba {

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};
std::string to_string(Device device);

using Shape = std::vector<int64_t>;
std::string to_string(const Shape& shape);  // "[2, 3]"
int64_t numel(const Shape& shape);

// Device memory from the caching allocator of its device; freed blocks are kept for reuse. 64-byte aligned.
class Storage {
 public:
  static std::shared_ptr<Storage> allocate(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  Storage() = default;
  void* data_ = nullptr;
  size_t bytes_ = 0, block_bytes_ = 0;  // asked for; size of the allocator's block
  Device device_;
};

// Figures of the caching allocator of one device, in bytes.
struct MemoryStats {
  int64_t allocated = 0, peak_allocated = 0, reserved = 0, peak_reserved = 0;
};
MemoryStats memory_stats(Device device = {});
void reset_peak_memory(Device device = {});
void release_cached_memory(Device device = {});

class Tensor {
 public:
  Tensor() = default;
  static Tensor empty(Shape shape, DType dtype, Device device = {});
  static Tensor zeros(Shape shape, DType dtype, Device device = {});
  static Tensor full(Shape shape, double value, DType dtype, Device device = {});
  template <class T>
  static Tensor from(const std::vector<T>& values, Shape shape);  // CPU, dtype of T

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim() const { return static_cast<int64_t>(shape_.size()); }
  int64_t size(int64_t i) const { return shape_[static_cast<size_t>(i < 0 ? i + dim() : i)]; }
  int64_t numel() const { return numel_; }
  int64_t nbytes() const { return numel_ * static_cast<int64_t>(dtype_size(dtype_)); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device(); }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  kernels::Stream stream() const;  // the current stream of its device

  void* raw() const { return static_cast<char*>(storage_->data()) + offset_bytes_; }
  template <class T>
  T* data() const {
    MOBA_ASSERT(DTypeOf<T>::value == dtype_);
    return static_cast<T*>(raw());
  }

  Tensor reshape(Shape shape) const;              // one dimension may be -1; a view
  Tensor rows(int64_t begin, int64_t end) const;  // [begin, end) of dimension 0; a view
  Tensor clone() const;
  Tensor to(DType dtype) const;  // same tensor if already so
  Tensor to(Device device) const;
  void copy_from(const Tensor& source) const;  // same number of elements; converts dtype, copies across devices
  void fill(double value) const;
  double item(int64_t i = 0) const;  // element i as double (any device)
  template <class T>
  std::vector<T> to_vector() const;  // CPU copy; T must match dtype

 private:
  std::shared_ptr<Storage> storage_;
  size_t offset_bytes_ = 0;
  Shape shape_;
  int64_t numel_ = 0;
  DType dtype_ = DType::f32;
};

}  // namespace moba
