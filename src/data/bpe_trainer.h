// Training of a byte-level BPE: the most frequent adjacent pair becomes a token, again and again (ties: the pair of lower ids).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/data/bpe_model.h"
#include "src/data/tokenizer.h"

namespace moba {

struct BpeTrainConfig {
  std::vector<std::string> inputs;  // as for prepare: text files, .jsonl with "text" (or chats), folders
  int32_t vocab_size = 0;           // 256 bytes, the merges, the special tokens
  std::string pattern = "cl100k";
};

// done and total are bytes of text while counting words, then merges.
enum class TrainPhase : uint8_t { count, merge };
using TrainProgress = std::function<void(TrainPhase phase, int64_t done, int64_t total)>;

std::unique_ptr<Tokenizer> train_bpe(const BpeTrainConfig& config, const TrainProgress& progress);

// The merging part: ids 0-255 are the bytes, merge i makes id 256 + i. Stops early when no pair is left.
std::vector<BpeModel::Merge> learn_merges(const std::unordered_map<std::string, int64_t>& word_counts, int32_t merges,
                                          const std::function<void(int64_t done)>& progress = {});

}  // namespace moba
