// What lies in a token dataset: for `moba-data stats`.
#pragma once
#include <cstdint>
#include <vector>

#include "src/data/token_dataset.h"

namespace moba {

struct DatasetStats {
  int64_t text_bytes = 0;                         // of all tokens but end and begin tokens
  int64_t counted = 0;                            // tokens that count as a target
  int64_t shortest = 0, median = 0, longest = 0;  // document lengths in tokens
  struct Bin {
    int64_t below;  // lengths in [previous below, below), powers of two
    int64_t documents, tokens;
  };
  std::vector<Bin> histogram;
};

DatasetStats dataset_stats(const TokenDataset& data);

}  // namespace moba
