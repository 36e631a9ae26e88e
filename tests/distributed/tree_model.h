// What the collectives must give, computed by one process: parts by rank, and their sum in the documented tree, written down as a
// recursion of its own (the code under test goes by distances).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "src/autograd/tensor.h"
#include "src/distributed/communicator.h"

namespace moba::test {

inline uint64_t mix(uint64_t x) {
  x ^= x >> 31;
  x *= 0x9e3779b97f4a7c15ull;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ull;
  return x ^ (x >> 32);
}

// Element i of rank r. Magnitudes differ by 2^12, so that another order of additions gives other bits.
template <class T>
T value(int rank, int64_t i, int salt) {
  const uint64_t h =
      mix(static_cast<uint64_t>(i) * 1315423911u + static_cast<uint64_t>(rank) * 2654435761u + static_cast<uint64_t>(salt) * 97 + 1);
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(h);
  } else {
    const double x = (static_cast<double>(h >> 11) * 0x1p-52 - 1) * static_cast<double>(1u << (h % 13));
    if constexpr (std::is_same_v<T, bf16>)
      return to_bf16(static_cast<float>(x));
    else
      return static_cast<T>(x);
  }
}

template <class T>
std::vector<T> part(int rank, int64_t n, int salt) {
  std::vector<T> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = value<T>(rank, i, salt);
  return v;
}

template <class T>
T combined(ReduceOp op, T a, T b) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(combined(op, to_float(a), to_float(b)));
  } else {
    if (op == ReduceOp::max) return a < b ? b : a;
    if (op == ReduceOp::min) return b < a ? b : a;
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
    else
      return a + b;
  }
}

// Parts of members[begin, end): the left subtree is the largest power of two below their number.
template <class T>
std::vector<T> tree(const std::vector<int>& members, size_t begin, size_t end, int64_t n, int salt, ReduceOp op) {
  if (end - begin == 1) return part<T>(members[begin], n, salt);
  size_t left = 1;
  while (2 * left < end - begin) left *= 2;
  std::vector<T> a = tree<T>(members, begin, begin + left, n, salt, op);
  const std::vector<T> b = tree<T>(members, begin + left, end, n, salt, op);
  for (size_t i = 0; i < a.size(); ++i) a[i] = combined(op, a[i], b[i]);
  return a;
}
template <class T>
std::vector<T> tree(const std::vector<int>& members, int64_t n, int salt, ReduceOp op = ReduceOp::sum) {
  return tree<T>(members, 0, members.size(), n, salt, op);
}

}  // namespace moba::test
