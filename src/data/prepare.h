// Text in, token dataset out: batches of documents, and of pieces of long ones, are tokenised on all threads and written in order, so
// memory stays bounded by the batch and the file does not depend on the number of threads. Where a tokenizer's split pattern is none of
// the named ones (Tokenizer::may_cut_lines) a document stays whole, and memory holds the longest.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/data/tokenizer.h"

namespace moba {

struct PrepareConfig {
  std::vector<std::string> inputs;
  std::string output;
  bool sft = false;  // JSON lines hold chats; writes a loss mask
  bool join_folders = false;
};

struct PrepareResult {
  int64_t documents = 0, tokens = 0, text_bytes = 0;
  int64_t empty = 0;    // documents without text, left out
  int64_t counted = 0;  // tokens that count as a target
};

// done and total are bytes of input.
using Progress = std::function<void(int64_t done, int64_t total)>;

PrepareResult prepare_dataset(const Tokenizer& tokenizer, const PrepareConfig& config, const Progress& progress);

}  // namespace moba
