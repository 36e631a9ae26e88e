// A random order without a table: a keyed bijection of [0, count), any element in O(1).
#pragma once
#include <cstdint>

namespace moba {

class Permutation {
 public:
  Permutation(int64_t count, uint64_t seed, uint64_t content_hash, uint64_t epoch);
  int64_t operator()(int64_t index) const;  // index in [0, count)

 private:
  static constexpr int kRounds = 6;
  int64_t count_;
  int half_bits_ = 1;
  uint64_t keys_[kRounds];
};

}  // namespace moba
