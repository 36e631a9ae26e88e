#include "src/data/permutation.h"

#include "kernels/common/check.h"

namespace moba {
namespace {

uint64_t mix(uint64_t x) {  // splitmix64's finaliser
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

Permutation::Permutation(int64_t count, uint64_t seed, uint64_t content_hash, uint64_t epoch) : count_(count) {
  MOBA_ASSERT(count > 0);
  while (half_bits_ < 31 && (int64_t{1} << (2 * half_bits_)) < count) ++half_bits_;
  uint64_t state = mix(mix(mix(seed) ^ content_hash) ^ epoch);
  for (uint64_t& key : keys_) key = state = mix(state);
}

// A Feistel network permutes [0, 4^half_bits), less than four times too large; indices that land outside walk on along their
// cycle, which keeps the map one-to-one.
int64_t Permutation::operator()(int64_t index) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<uint64_t>(index);
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask);
      left = right;
      right = next;
    }
    x = left << half_bits_ | right;
  } while (x >= static_cast<uint64_t>(count_));
  return static_cast<int64_t>(x);
}

}  // namespace moba
