// What the tests of the small kernels share: inputs of any dtype, deliberately misaligned outputs, and loops over variants.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/threads.h"
#include "tests/support/compare.h"
#include "tests/support/moba_cases.h"

namespace moba::test {

// n elements of a dtype that start one element past a 64-byte border: every vector access is misaligned. Writing past either
// end shows in guards_intact().
class Array {
 public:
  Array(DType dtype, int64_t n) : dtype_(dtype), n_(n), bytes_(kGuard + size_bytes() + kGuard, kPattern) {}
  Array(DType dtype, const std::vector<float>& values) : Array(dtype, static_cast<int64_t>(values.size())) {
    for (int64_t i = 0; i < n_; ++i) set(i, values[static_cast<size_t>(i)]);
  }
  static Array normal(DType dtype, int64_t n, uint64_t seed) { return Array(dtype, random_normal(n, seed)); }
  static Array zeros(DType dtype, int64_t n) { return Array(dtype, std::vector<float>(static_cast<size_t>(n), 0.0f)); }

  void set(int64_t i, double x) {
    if (dtype_ == DType::f64) static_cast<double*>(data())[i] = x;
    if (dtype_ == DType::f32) static_cast<float*>(data())[i] = static_cast<float>(x);
    if (dtype_ == DType::bf16) static_cast<bf16*>(data())[i] = to_bf16(static_cast<float>(x));
  }
  void* data() { return bytes_.data() + offset(); }
  const void* data() const { return bytes_.data() + offset(); }
  int64_t size() const { return n_; }
  size_t size_bytes() const { return static_cast<size_t>(n_) * dtype_size(dtype_); }
  std::vector<double> values() const { return widen(data(), dtype_, n_); }
  bool guards_intact() const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if ((i < offset() || i >= offset() + size_bytes()) && bytes_[i] != kPattern) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 128;
  static constexpr unsigned char kPattern = 0xa5;
  size_t offset() const { return 64 + dtype_size(dtype_); }

  DType dtype_;
  int64_t n_;
  std::vector<unsigned char> bytes_;
};

// Relative RMS allowed for a result stored as `dtype`: a single bf16 may be off by 2^-8 of itself; fp32 and fp64 get a few
// roundings inside.
inline double tolerance(DType dtype) { return dtype == DType::bf16 ? 4e-3 : dtype == DType::f32 ? 1e-6 : 1e-14; }

inline const std::vector<DType>& float_dtypes() {
  static const std::vector<DType> all = {DType::f32, DType::bf16, DType::f64};
  return all;
}
inline DType accumulator(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// body() with every variant this machine can run active; the best one again afterwards.
inline void for_each_isa(const std::function<void()>& body) {
  const kernels::Isa before = kernels::active_isa();
  for (kernels::Isa isa : kernels::supported_isas()) {
    SCOPED_TRACE(kernels::isa_name(isa));
    kernels::set_active_isa(isa);
    body();
  }
  kernels::set_active_isa(before);
}

inline void for_each_isa_and_dtype(const std::function<void(DType)>& body) {
  for_each_isa([&] {
    for (DType dtype : float_dtypes()) {
      SCOPED_TRACE(dtype_name(dtype));
      body(dtype);
    }
  });
}

// Tests of many small products run on one thread: the many barriers would be most of their time.
class OneThread {
 public:
  OneThread() : before_(num_threads()) { set_num_threads(1); }
  ~OneThread() { set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// result() must give the same bytes with 1, 2 and 4 threads in every variant.
inline void expect_same_bits_for_any_threads(const std::function<Array()>& result) {
  const int before = num_threads();
  for_each_isa([&] {
    set_num_threads(1);
    const Array alone = result();
    for (int threads : {2, 4}) {
      SCOPED_TRACE(threads);
      set_num_threads(threads);
      const Array team = result();
      EXPECT_TRUE(same_bits("result", team.data(), alone.data(), alone.size_bytes()));
    }
  });
  set_num_threads(before);
}

// The message of the Error that f throws; empty (and a failure) if it throws none.
inline std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace moba::test
