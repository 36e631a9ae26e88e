// Order and packing. Global sample number -> sample is a pure function of (files, weights, seed, sequence length, packing), so
// micro-batch size, ranks and prefetch do not matter, and the state is one integer: the number of samples consumed.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/data/token_dataset.h"

namespace moba {

enum class Packing : uint8_t { concat, best_fit };
enum class TooLong : uint8_t { drop, truncate };

struct SamplerConfig {
  struct Source {
    std::string path;
    double weight = 1;
    bool operator==(const Source&) const = default;
  };
  std::vector<Source> sources;
  int64_t sequence_length = 0;  // T; a sample is T+1 tokens
  uint64_t seed = 0;
  Packing packing = Packing::concat;
  bool document_mask = false;
  TooLong too_long = TooLong::drop;
  bool ignore_loss_mask = false;  // every token of a document counts as a target (sft.train_on_prompt)
  bool shuffle = true;            // false: in file order, once (evaluation)
};

// One packed sample, ready for the model: document pieces as sequences when document_mask (else one).
struct Sample {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> targets;     // [T], -1 = not counted
  std::vector<int32_t> positions;   // [T]
  std::vector<int32_t> cu_seqlens;  // [pieces + 1]
  int64_t counted() const;          // number of targets >= 0
};

class Sampler {
 public:
  explicit Sampler(const SamplerConfig& config);  // opens files; Error if one is missing or too short
  ~Sampler();
  int64_t samples_per_epoch() const;  // of all sources together (evaluation: total)
  Sample sample(int64_t n) const;     // thread-safe, pure
  const std::vector<TokenDataset>& datasets() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Which samples of a stream one reader wants: of every `period` samples the `count` from `begin` on.
struct SampleShare {
  int64_t begin = 0, count = 1, period = 1;
  // Number of the i-th wanted sample of a stream that starts at `first`.
  int64_t sample(int64_t first, int64_t i) const { return first + i / count * period + begin + i % count; }
};

// Background prefetch of a share of the samples from first_sample on (std::thread, no compute threads inside). Prefetched is not
// consumed.
class Loader {
 public:
  Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, int64_t ahead, SampleShare share = {});
  ~Loader();
  Sample next();             // sample position(); rethrows reader errors
  int64_t position() const;  // number of the sample that next() returns

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moba
