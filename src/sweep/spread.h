// The spread of paired differences: of a claim's own seeds, or of all pairs of a metric together.
#pragma once
#include <string>
#include <vector>

namespace moba::sweep {

struct Pair {
  std::string arm, reference;
  std::vector<double> differences;  // by seed
};

struct Spread {
  double variance = 0;
  double degrees = 0;  // of freedom; 0: nothing can be said
  const char* name = "";
};

Spread own_spread(const std::vector<double>& differences);
// Pairs that share a run vary together: with normal noise the correlation of their deviations is 1/2, of the squares 1/4. So the degrees
// of freedom are divided by 1 + p/4, where a pair shares a run with p others on average.
Spread pooled_spread(const std::vector<Pair>& pairs);

}  // namespace moba::sweep
