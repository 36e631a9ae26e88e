// What an evaluation reads of its files: packed samples and, for loss by position, full windows of documents.
#pragma once
#include <cstdint>
#include <vector>

#include "src/data/sampler.h"
#include "src/train/evaluate.h"

namespace moba {

SamplerConfig packed_sampler(const EvaluationConfig& config);  // in file order, once
int64_t sample_limit(const EvaluationConfig& config);          // samples of the packed pass, and again of the windows
bool reads_windows(const EvaluationConfig& config);

// First tokens of the non-overlapping windows of all documents that have room for a window and its last target.
std::vector<int64_t> window_starts(const TokenDataset& data, int64_t length);
// A full window of a document as a sample: tokens [begin, begin + L] of the file, all of one document.
Sample window_sample(const TokenDataset& data, int64_t begin, int64_t length, bool ignore_loss_mask);

// Reads all of it, which compares it with its checksums. Error: a file is missing or too short (usage) or damaged (corrupt_input).
void check_evaluation_data(const EvaluationConfig& config);

}  // namespace moba
