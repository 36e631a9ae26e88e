// Byte pair encoding: a vocabulary with ranked merges, and the tokenizer that applies it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer.h"

namespace moba {

struct BpeModel {
  struct Merge {
    int32_t left, right, merged;
  };
  struct Special {
    std::string content;
    int32_t id;
  };
  std::vector<std::string> tokens;  // bytes by id, specials included; empty = no token has this id
  std::vector<Merge> merges;        // by rank, the first applies first
  std::vector<Special> specials;
  std::vector<std::string> patterns;  // of the pre-tokenizer
  bool ignore_merges = false;         // a piece that is a token is taken whole, whatever the merges say
  int32_t eos = -1, bos = -1;
};

// `json` is kept as the tokenizer's file. Error when a single byte has no token or a merge does not fit its tokens.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeModel model, std::string json);

}  // namespace moba
