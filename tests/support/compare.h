// The only comparer of the test suite. Checks NaN first, then the error; prints name, worst index, both values, count of bad.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/common/types.h"

namespace moba::test {

// Everything as fp64.
template <class T>
std::vector<double> widen(const T* values, int64_t n) {
  std::vector<double> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<T, bf16>)
      out[static_cast<size_t>(i)] = to_float(values[i]);
    else
      out[static_cast<size_t>(i)] = static_cast<double>(values[i]);
  }
  return out;
}
std::vector<double> widen(const void* values, DType dtype, int64_t n);

// Relative RMS: |got - want|_2 / |want|_2 (absolute RMS when want is all zero). Any NaN that `want` does not share gives infinity.
double relative_rms(std::span<const double> got, std::span<const double> want);

// Passes when relative_rms <= tolerance and no NaN or Inf differs.
::testing::AssertionResult close_rms(const std::string& name, std::span<const double> got, std::span<const double> want, double tolerance);
// Passes when |got - want| <= absolute + relative * |want| for every element.
::testing::AssertionResult close_each(const std::string& name, std::span<const double> got, std::span<const double> want, double absolute,
                                      double relative);
// Passes when the bytes are equal; names the first difference.
::testing::AssertionResult same_bits(const std::string& name, const void* got, const void* want, size_t bytes);

}  // namespace moba::test

#define EXPECT_CLOSE_RMS(got, want, tolerance) EXPECT_TRUE(::moba::test::close_rms(#got, got, want, tolerance))
