#include "src/autograd/rng.h"

#include <cmath>
#include <numbers>

#include "kernels/common/threads.h"

namespace moba {
namespace {

constexpr int64_t kPiece = 16384;  // elements per piece of work; a multiple of 4

double unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }      // [0, 1)
double unit32(uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }  // (0, 1)
uint64_t join(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }

// Box-Muller: two uniforms in (0, 1) to two independent normals.
void normal_pair(double u, double v, double out[2]) {
  const double radius = std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * v;
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

// Four elements from each block: block(bits, out[4]).
template <class Block>
void fill_blocks(const Tensor& t, uint64_t seed, uint64_t stream, Block&& block) {
  const Tensor host = Tensor::empty(t.shape(), DType::f32);
  float* data = host.data<float>();
  parallel_for(t.numel(), kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 4) {
      double out[4];
      block(philox(seed, stream, static_cast<uint64_t>(i / 4)), out);
      for (int64_t j = i; j < std::min(i + 4, end); ++j) data[j] = static_cast<float>(out[j - i]);
    }
  });
  t.copy_from(host);
}

}  // namespace

std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter) {
  std::array<uint32_t, 4> x{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(stream),
                            static_cast<uint32_t>(stream >> 32)};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * x[0], b = uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ x[3] ^ k1,
         static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return x;
}

uint64_t Rng::bits() {
  const auto x = philox(state_.seed, state_.stream, state_.counter++);
  return join(x[0], x[1]);
}

double Rng::uniform() { return unit(bits()); }

double Rng::normal() {
  const auto x = philox(state_.seed, state_.stream, state_.counter++);
  double pair[2];
  normal_pair(unit(join(x[0], x[1])) + 0x1p-54, unit(join(x[2], x[3])), pair);
  return pair[0];
}

uint64_t Rng::below(uint64_t bound) {
  MOBA_ASSERT(bound >= 1);
  const uint64_t unbiased = -bound % bound;  // first values to reject so that the rest divides evenly
  for (;;) {
    const uint64_t b = bits();
    if (b >= unbiased) return b % bound;
  }
}

void fill_normal(const Tensor& t, double mean, double deviation, uint64_t seed, uint64_t stream) {
  fill_blocks(t, seed, stream, [=](const std::array<uint32_t, 4>& x, double out[4]) {
    normal_pair(unit32(x[0]), unit32(x[1]), out);
    normal_pair(unit32(x[2]), unit32(x[3]), out + 2);
    for (int j = 0; j < 4; ++j) out[j] = mean + deviation * out[j];
  });
}

void fill_uniform(const Tensor& t, double low, double high, uint64_t seed, uint64_t stream) {
  fill_blocks(t, seed, stream, [=](const std::array<uint32_t, 4>& x, double out[4]) {
    for (int j = 0; j < 4; ++j) out[j] = low + (high - low) * unit32(x[static_cast<size_t>(j)]);
  });
}

}  // namespace moba
