#include "src/sweep/spread.h"

#include "src/sweep/student.h"

namespace moba::sweep {
namespace {

bool share_a_run(const Pair& a, const Pair& b) {
  return a.arm == b.arm || a.arm == b.reference || a.reference == b.arm || a.reference == b.reference;
}

}  // namespace

Spread own_spread(const std::vector<double>& differences) {
  const double degrees = static_cast<double>(differences.size()) - 1;
  if (degrees < 1) return {0, 0, "own"};
  return {sum_of_squares(differences) / degrees, degrees, "own"};
}

Spread pooled_spread(const std::vector<Pair>& pairs) {
  double squares = 0, degrees = 0, partners = 0;
  for (const Pair& pair : pairs) {
    squares += sum_of_squares(pair.differences);
    degrees += static_cast<double>(pair.differences.size()) - 1;
    for (const Pair& other : pairs) partners += &other != &pair && share_a_run(pair, other) ? 1 : 0;
  }
  if (degrees < 1) return {0, 0, "pooled"};
  return {squares / degrees, degrees / (1 + partners / static_cast<double>(pairs.size()) / 4), "pooled"};
}

}  // namespace moba::sweep
