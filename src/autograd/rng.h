// Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011). A number is a pure function of (seed, stream,
// counter): nothing depends on threads, devices or on who drew before. The state that checkpoints keep is three integers.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "src/autograd/tensor.h"

namespace moba {

// 128 random bits of block `counter` in (seed, stream).
std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter);

// FNV-1a, to make a stream of a name ("model.layers.0.self_attn.q_proj.weight").
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

// Draws one after another; each draw takes one block.
class Rng {
 public:
  struct State {
    uint64_t seed = 0, stream = 0, counter = 0;
    bool operator==(const State&) const = default;
  };
  explicit Rng(uint64_t seed, uint64_t stream = 0) : state_{seed, stream, 0} {}
  explicit Rng(const State& state) : state_(state) {}
  const State& state() const { return state_; }

  uint64_t bits();
  double uniform();                // [0, 1), 53 bits
  double normal();                 // mean 0, deviation 1
  uint64_t below(uint64_t bound);  // uniform in [0, bound), bound >= 1

 private:
  State state_;
};

// Fills a float tensor; element i depends on (seed, stream, i) only. Computed on the host, so every device gets the same bits.
void fill_normal(const Tensor& t, double mean, double deviation, uint64_t seed, uint64_t stream);
void fill_uniform(const Tensor& t, double low, double high, uint64_t seed, uint64_t stream);

}  // namespace moba
