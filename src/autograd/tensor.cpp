#include "src/autograd/tensor.h"

#include <limits>

#include "kernels/elementwise/elementwise.h"
#include "src/autograd/device.h"

namespace moba {
namespace {

bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f64; }

DeviceBackend& backend_of(const Tensor& t) { return device_backend(t.device().type); }

// f(value of type T): calls f with a null pointer of the C++ type behind an integer dtype.
template <class F>
void with_integer_type(DType t, F&& f) {
  switch (t) {
    case DType::i32: return f(static_cast<int32_t*>(nullptr));
    case DType::i64: return f(static_cast<int64_t*>(nullptr));
    case DType::u8: return f(static_cast<uint8_t*>(nullptr));
    case DType::u16: return f(static_cast<uint16_t*>(nullptr));
    case DType::u32: return f(static_cast<uint32_t*>(nullptr));
    default: MOBA_ASSERT(!"integer dtype expected");
  }
}

}  // namespace

std::string to_string(Device device) { return device.type == DeviceType::cpu ? "cpu" : fmt::format("cuda:{}", device.index); }

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) {
    MOBA_ASSERT(size >= 0);
    const bool overflow = __builtin_mul_overflow(n, size, &n);
    MOBA_ASSERT(!overflow);
  }
  return n;
}

Tensor Tensor::empty(Shape shape, DType dtype, Device device) {
  Tensor t;
  t.numel_ = moba::numel(shape);
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  t.storage_ = Storage::allocate(static_cast<size_t>(t.nbytes()), device);
  return t;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device) {
  Tensor t = empty(std::move(shape), dtype, device);
  backend_of(t).fill_bytes(t.raw(), 0, static_cast<size_t>(t.nbytes()), t.stream());
  return t;
}

Tensor Tensor::full(Shape shape, double value, DType dtype, Device device) {
  Tensor t = empty(std::move(shape), dtype, device);
  t.fill(value);
  return t;
}

template <class T>
Tensor Tensor::from(const std::vector<T>& values, Shape shape) {
  Tensor t = empty(std::move(shape), DTypeOf<T>::value);
  MOBA_ASSERT(static_cast<int64_t>(values.size()) == t.numel());
  cpu_backend().copy_from_host(t.raw(), values.data(), static_cast<size_t>(t.nbytes()), t.stream());
  return t;
}

kernels::Stream Tensor::stream() const { return backend_of(*this).current_stream(device().index); }

Tensor Tensor::reshape(Shape shape) const {
  int64_t known = 1, *unknown = nullptr;
  for (int64_t& size : shape) {
    if (size != -1) {
      known *= size;
    } else {
      MOBA_ASSERT(!unknown);
      unknown = &size;
    }
  }
  if (unknown) *unknown = known ? numel_ / known : 0;
  MOBA_CHECK(moba::numel(shape) == numel_, "reshape: {} elements of shape {} do not fit {}", numel_, to_string(shape_), to_string(shape));
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  MOBA_ASSERT(dim() >= 1 && 0 <= begin && begin <= end && end <= size(0));
  const int64_t row = size(0) ? numel_ / size(0) : 0;
  Tensor t = *this;
  t.shape_[0] = end - begin;
  t.numel_ = row * (end - begin);
  t.offset_bytes_ += static_cast<size_t>(row * begin) * dtype_size(dtype_);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device where) const {
  if (where == device()) return *this;
  Tensor t = empty(shape_, dtype_, where);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  MOBA_ASSERT(source.numel() == numel_);
  if (source.dtype() != dtype_) {
    MOBA_CHECK(is_float(dtype_) && is_float(source.dtype()), "cannot convert {} to {}", dtype_name(source.dtype()), dtype_name(dtype_));
    const Tensor converted = source.device() == device() ? *this : empty(shape_, dtype_, source.device());
    kernels::convert(source.stream(), source.dtype(), dtype_, numel_, source.raw(), converted.raw());
    if (source.device() != device()) copy_from(converted);
    return;
  }
  const auto bytes = static_cast<size_t>(nbytes());
  const bool here = device().type == DeviceType::cpu, there = source.device().type == DeviceType::cpu;
  if (here || source.device() == device()) {
    if (there || !here)
      backend_of(*this).copy(raw(), source.raw(), bytes, stream());
    else
      backend_of(source).copy_to_host(raw(), source.raw(), bytes, source.stream());
  } else if (there) {
    backend_of(*this).copy_from_host(raw(), source.raw(), bytes, stream());
  } else {
    copy_from(source.to(Device{}));
  }
}

void Tensor::fill(double value) const {
  if (is_float(dtype_)) return kernels::fill(stream(), dtype_, numel_, value, raw());
  with_integer_type(dtype_, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const std::vector<T> host(static_cast<size_t>(numel_), static_cast<T>(value));
    backend_of(*this).copy_from_host(raw(), host.data(), static_cast<size_t>(nbytes()), stream());
  });
}

double Tensor::item(int64_t i) const {
  MOBA_ASSERT(0 <= i && i < numel_);
  alignas(8) char bytes[8];
  const size_t width = dtype_size(dtype_);
  backend_of(*this).copy_to_host(bytes, static_cast<const char*>(raw()) + static_cast<size_t>(i) * width, width, stream());
  switch (dtype_) {
    case DType::f32: return *reinterpret_cast<float*>(bytes);
    case DType::f64: return *reinterpret_cast<double*>(bytes);
    case DType::bf16: return to_float(*reinterpret_cast<bf16*>(bytes));
    default: break;
  }
  double value = std::numeric_limits<double>::quiet_NaN();
  with_integer_type(dtype_, [&](auto* type) { value = static_cast<double>(*reinterpret_cast<decltype(type)>(bytes)); });
  return value;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  MOBA_ASSERT(DTypeOf<T>::value == dtype_);
  std::vector<T> values(static_cast<size_t>(numel_));
  backend_of(*this).copy_to_host(values.data(), raw(), static_cast<size_t>(nbytes()), stream());
  return values;
}

#define MOBA_INSTANTIATE(T)                                      \
  template Tensor Tensor::from<T>(const std::vector<T>&, Shape); \
  template std::vector<T> Tensor::to_vector<T>() const;
MOBA_INSTANTIATE(float)
MOBA_INSTANTIATE(double)
MOBA_INSTANTIATE(bf16)
MOBA_INSTANTIATE(int32_t)
MOBA_INSTANTIATE(int64_t)
MOBA_INSTANTIATE(uint8_t)
MOBA_INSTANTIATE(uint16_t)
MOBA_INSTANTIATE(uint32_t)
#undef MOBA_INSTANTIATE

}  // namespace moba
