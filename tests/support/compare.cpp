#include "tests/support/compare.h"

#include <cstring>
#include <limits>

namespace moba::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Non-finite values must agree exactly (NaN with NaN, Inf with the same Inf).
bool same_class(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return true;
}

struct Worst {
  size_t index = 0, bad = 0;
  double excess = -1;
};

::testing::AssertionResult describe(const std::string& name, std::span<const double> got, std::span<const double> want, const Worst& w,
                                    const std::string& what) {
  auto result = ::testing::AssertionFailure() << name << ": " << what;
  if (!got.empty())
    result << "; worst at " << w.index << ": got " << got[w.index] << ", want " << want[w.index] << "; " << w.bad << " of " << got.size()
           << " bad";
  return result;
}

}  // namespace

std::vector<double> widen(const void* values, DType dtype, int64_t n) {
  switch (dtype) {
    case DType::f32: return widen(static_cast<const float*>(values), n);
    case DType::bf16: return widen(static_cast<const bf16*>(values), n);
    case DType::f64: return widen(static_cast<const double*>(values), n);
    case DType::i32: return widen(static_cast<const int32_t*>(values), n);
    case DType::i64: return widen(static_cast<const int64_t*>(values), n);
    case DType::u8: return widen(static_cast<const uint8_t*>(values), n);
    case DType::u16: return widen(static_cast<const uint16_t*>(values), n);
    case DType::u32: return widen(static_cast<const uint32_t*>(values), n);
  }
  return {};
}

double relative_rms(std::span<const double> got, std::span<const double> want) {
  if (got.size() != want.size()) return kInfinity;
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!same_class(got[i], want[i])) return kInfinity;
    if (!std::isfinite(want[i])) continue;
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (norm == 0) return got.empty() ? 0 : std::sqrt(error / static_cast<double>(got.size()));
  return std::sqrt(error / norm);
}

::testing::AssertionResult close_rms(const std::string& name, std::span<const double> got, std::span<const double> want, double tolerance) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << name << ": " << got.size() << " elements, want " << want.size();
  Worst w;
  for (size_t i = 0; i < got.size(); ++i) {
    const double excess = same_class(got[i], want[i]) ? (std::isfinite(want[i]) ? std::abs(got[i] - want[i]) : 0) : kInfinity;
    if (excess == kInfinity) ++w.bad;
    if (excess > w.excess) w.excess = excess, w.index = i;
  }
  if (w.bad) return describe(name, got, want, w, "NaN or Inf differs");
  const double error = relative_rms(got, want);
  if (!(error <= tolerance))
    return describe(name, got, want, w, "relative RMS " + std::to_string(error) + " > " + std::to_string(tolerance));
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult close_each(const std::string& name, std::span<const double> got, std::span<const double> want, double absolute,
                                      double relative) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << name << ": " << got.size() << " elements, want " << want.size();
  Worst w;
  for (size_t i = 0; i < got.size(); ++i) {
    double excess = kInfinity;
    if (same_class(got[i], want[i]))
      excess = std::isfinite(want[i]) ? std::abs(got[i] - want[i]) - absolute - relative * std::abs(want[i]) : 0;
    if (excess > 0) ++w.bad;
    if (excess > w.excess) w.excess = excess, w.index = i;
  }
  if (w.bad) return describe(name, got, want, w, "beyond tolerance");
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult same_bits(const std::string& name, const void* got, const void* want, size_t bytes) {
  const auto* a = static_cast<const unsigned char*>(got);
  const auto* b = static_cast<const unsigned char*>(want);
  size_t first = bytes, bad = 0;
  for (size_t i = 0; i < bytes; ++i)
    if (a[i] != b[i]) first = first == bytes ? i : first, ++bad;
  if (bad) return ::testing::AssertionFailure() << name << ": " << bad << " of " << bytes << " bytes differ, first at byte " << first;
  return ::testing::AssertionSuccess();
}

}  // namespace moba::test
