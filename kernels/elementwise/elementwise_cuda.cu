// Element-wise kernels: one thread per element in a grid-stride loop. Bound by memory: bytes read and written / bandwidth.
#include "kernels/common/cuda/launch.cuh"
#include "kernels/elementwise/elementwise_cuda.h"

namespace moba::kernels::cuda {
namespace {

constexpr int kBlock = 256;

// Storage element <-> arithmetic value; bf16 rounds to nearest even exactly as to_bf16 does on the CPU.
__device__ inline float load(const float* p, int64_t i) { return p[i]; }
__device__ inline double load(const double* p, int64_t i) { return p[i]; }
__device__ inline float load(const bf16* p, int64_t i) { return __uint_as_float(static_cast<uint32_t>(p[i].bits) << 16); }
__device__ inline void store(float* p, int64_t i, double v) { p[i] = static_cast<float>(v); }
__device__ inline void store(double* p, int64_t i, double v) { p[i] = v; }
__device__ inline void store(bf16* p, int64_t i, double v) {
  const uint32_t u = __float_as_uint(static_cast<float>(v));
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  p[i].bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

__device__ inline int64_t first() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

template <class T>
__global__ void add_kernel(int64_t n, const T* a, const T* b, T* y) {
  for (int64_t i = first(); i < n; i += stride()) store(y, i, load(a, i) + load(b, i));
}

template <class From, class To>
__global__ void convert_kernel(int64_t n, const From* x, To* y) {
  for (int64_t i = first(); i < n; i += stride()) store(y, i, load(x, i));
}

template <class T>
__global__ void fill_kernel(int64_t n, double value, T* y) {
  for (int64_t i = first(); i < n; i += stride()) store(y, i, value);
}

dim3 grid_for(int64_t n) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  return dim3(static_cast<unsigned>(blocks < 65536 ? (blocks > 0 ? blocks : 1) : 65536));
}

// Calls f with a null pointer of the element type that `dtype` names.
template <class F>
void with_type(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(static_cast<float*>(nullptr));
    case DType::bf16: return f(static_cast<bf16*>(nullptr));
    case DType::f64: return f(static_cast<double*>(nullptr));
    default: throw_float_type_wanted(op, dtype);
  }
}

}  // namespace

void add(const Stream& stream, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  with_type("add", dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    launch(stream, "add", add_kernel<T>, grid_for(n), dim3(kBlock), 0, n, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(y));
  });
}

void convert(const Stream& stream, DType from, DType to, int64_t n, const void* x, void* y) {
  with_type("convert", from, [&](auto* f) {
    using From = std::remove_pointer_t<decltype(f)>;
    with_type("convert", to, [&](auto* t) {
      using To = std::remove_pointer_t<decltype(t)>;
      launch(stream, "convert", convert_kernel<From, To>, grid_for(n), dim3(kBlock), 0, n, static_cast<const From*>(x), static_cast<To*>(y));
    });
  });
}

void fill(const Stream& stream, DType dtype, int64_t n, double value, void* y) {
  with_type("fill", dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    launch(stream, "fill", fill_kernel<T>, grid_for(n), dim3(kBlock), 0, n, value, static_cast<T*>(y));
  });
}

}  // namespace moba::kernels::cuda
