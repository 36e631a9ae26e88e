// (left, right) -> (rank, merged): open addressing, one cache line per look-up as a rule.
#pragma once
#include <cstdint>
#include <vector>

#include "src/data/bpe_model.h"

namespace moba {

class MergeTable {
 public:
  struct Entry {
    uint64_t pair = kEmpty;
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  explicit MergeTable(const std::vector<BpeModel::Merge>& merges) {
    size_t slots = 16;
    while (slots < merges.size() * 2) slots *= 2;
    entries_.resize(slots);
    mask_ = slots - 1;
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const uint64_t pair = key(merges[rank].left, merges[rank].right);
      size_t i = slot(pair);
      while (entries_[i].pair != kEmpty && entries_[i].pair != pair) i = (i + 1) & mask_;
      if (entries_[i].pair == kEmpty) entries_[i] = {pair, static_cast<uint32_t>(rank), merges[rank].merged};
    }
  }

  // Entry with kNoRank when the pair never merges.
  const Entry& find(int32_t left, int32_t right) const {
    const uint64_t pair = key(left, right);
    size_t i = slot(pair);
    while (entries_[i].pair != pair && entries_[i].pair != kEmpty) i = (i + 1) & mask_;
    return entries_[i];
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(uint64_t pair) const { return static_cast<size_t>((pair * 0x9E3779B97F4A7C15u) >> 20) & mask_; }

  std::vector<Entry> entries_;
  size_t mask_ = 0;
};

}  // namespace moba
