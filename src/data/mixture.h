// Which source the n-th sample of a weighted mixture comes from: always the one most behind its weight (ties: the first).
// With integer weights of sum W that order repeats after W samples, each source then having had exactly its weight, so a table
// of one period answers any n. Weights are rounded to 1/65536 of their sum where no smaller W is exact.
#pragma once
#include <cstdint>
#include <vector>

namespace moba {

class Mixture {
 public:
  struct Pick {
    int source;
    int64_t index;  // how many samples of that source came before
  };
  explicit Mixture(const std::vector<double>& weights);  // all finite and > 0, else Error
  Pick operator()(int64_t n) const;

 private:
  struct Slot {
    uint32_t source, before;
  };
  std::vector<int64_t> weights_;  // per period
  std::vector<Slot> period_;
};

}  // namespace moba
