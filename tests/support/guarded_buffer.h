// An output buffer for tests: elements start as NaN (integers: a pattern no kernel writes), and bytes on both sides are
// watched, so that "not written" and "written beside" both show.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/common/types.h"

namespace moba::test {

template <class T>
class GuardedBuffer {
 public:
  explicit GuardedBuffer(int64_t n) : n_(n), bytes_(static_cast<size_t>(n) * sizeof(T) + 2 * kGuard, kPattern) {
    for (int64_t i = 0; i < n; ++i) data()[i] = poison();
  }

  T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + kGuard); }
  int64_t size() const { return n_; }
  size_t size_bytes() const { return static_cast<size_t>(n_) * sizeof(T); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  std::span<const T> span() const { return {data(), static_cast<size_t>(n_)}; }

  // True while no byte outside the buffer has changed.
  bool guards_intact() const {
    for (size_t i = 0; i < kGuard; ++i)
      if (bytes_[i] != kPattern || bytes_[bytes_.size() - 1 - i] != kPattern) return false;
    return true;
  }

  // True while no element has been written.
  bool untouched() const {
    for (int64_t i = 0; i < n_; ++i) {
      const T want = poison();
      if (std::memcmp(data() + i, &want, sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;  // a vector store or two past the end; keeps the 64-byte alignment of the allocation
  static constexpr unsigned char kPattern = 0xa5;

  static T poison() {
    if constexpr (std::is_same_v<T, bf16>)
      return to_bf16(std::numeric_limits<float>::quiet_NaN());
    else if constexpr (std::is_floating_point_v<T>)
      return std::numeric_limits<T>::quiet_NaN();
    else
      return static_cast<T>(0x5a5a5a5a);
  }

  int64_t n_;
  std::vector<unsigned char> bytes_;
};

}  // namespace moba::test
