// Counts are kept up to date incrementally: a merge visits only the words that hold its pair. The heap may hold outdated counts;
// a popped entry that is too high goes back with its present count.
#include <algorithm>
#include <queue>

#include "src/data/bpe_trainer.h"

namespace moba {
namespace {

using Pair = uint64_t;
Pair make_pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct PairHash {
  size_t operator()(Pair pair) const { return static_cast<size_t>((pair * 0x9E3779B97F4A7C15u) >> 16); }
};

struct PairState {
  int64_t count = 0;
  std::vector<uint32_t> words;  // that hold the pair, or held it once
};

struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : pair > other.pair; }
};

class Merger {
 public:
  explicit Merger(const std::unordered_map<std::string, int64_t>& word_counts) {
    std::vector<std::pair<std::string_view, int64_t>> words(word_counts.begin(), word_counts.end());
    std::ranges::sort(words);  // the order of a hash map must not matter
    for (const auto& [word, count] : words) {
      starts_.push_back(symbols_.size());
      lengths_.push_back(static_cast<uint32_t>(word.size()));
      counts_.push_back(count);
      for (const char byte : word) symbols_.push_back(static_cast<uint8_t>(byte));
    }
    for (uint32_t w = 0; w < counts_.size(); ++w) {
      const int32_t* s = symbols_.data() + starts_[w];
      for (uint32_t i = 0; i + 1 < lengths_[w]; ++i) add(s[i], s[i + 1], w);
    }
    for (const auto& [pair, state] : pairs_) candidates_.push({state.count, pair});
  }

  // The pair to merge next; false when none is left.
  bool best(int32_t& left, int32_t& right) {
    while (!candidates_.empty()) {
      const Candidate top = candidates_.top();
      candidates_.pop();
      const int64_t count = pairs_[top.pair].count;
      if (count == top.count && count > 0) {
        left = static_cast<int32_t>(top.pair >> 32);
        right = static_cast<int32_t>(top.pair & UINT32_MAX);
        return true;
      }
      if (count > 0 && count < top.count) candidates_.push({count, top.pair});
    }
    return false;
  }

  void merge(int32_t left, int32_t right, int32_t merged) {
    const auto node = pairs_.extract(make_pair_key(left, right));
    risen_.clear();
    uint32_t last = UINT32_MAX;
    for (const uint32_t word : node.mapped().words) {  // ascending, perhaps with repeats
      if (word != last) merge_in(word, left, right, merged);
      last = word;
    }
    pairs_.erase(make_pair_key(left, right));  // what merge_in subtracted from it
    std::ranges::sort(risen_);
    risen_.erase(std::unique(risen_.begin(), risen_.end()), risen_.end());
    for (const Pair pair : risen_) {
      if (const int64_t count = pairs_[pair].count; count > 0) candidates_.push({count, pair});
    }
  }

 private:
  void add(int32_t left, int32_t right, uint32_t word) {
    PairState& state = pairs_[make_pair_key(left, right)];
    state.count += counts_[word];
    if (state.words.empty() || state.words.back() != word) state.words.push_back(word);
  }
  void subtract(int32_t left, int32_t right, uint32_t word) { pairs_[make_pair_key(left, right)].count -= counts_[word]; }

  void merge_in(uint32_t word, int32_t left, int32_t right, int32_t merged) {
    int32_t* s = symbols_.data() + starts_[word];
    const uint32_t length = lengths_[word];
    uint32_t out = 0;
    for (uint32_t i = 0; i < length; ++i) {
      if (i + 1 == length || s[i] != left || s[i + 1] != right) {
        s[out++] = s[i];
        continue;
      }
      if (out > 0) {
        subtract(s[out - 1], left, word);
        add(s[out - 1], merged, word);
        risen_.push_back(make_pair_key(s[out - 1], merged));
      }
      if (i + 2 < length) {
        subtract(right, s[i + 2], word);
        add(merged, s[i + 2], word);
        risen_.push_back(make_pair_key(merged, s[i + 2]));
      }
      s[out++] = merged;
      ++i;
    }
    lengths_[word] = out;
  }

  std::vector<int32_t> symbols_;  // of all words, one after another
  std::vector<size_t> starts_;    // by word
  std::vector<uint32_t> lengths_;
  std::vector<int64_t> counts_;
  std::unordered_map<Pair, PairState, PairHash> pairs_;
  std::priority_queue<Candidate> candidates_;
  std::vector<Pair> risen_;
};

}  // namespace

std::vector<BpeModel::Merge> learn_merges(const std::unordered_map<std::string, int64_t>& word_counts, int32_t merges,
                                          const std::function<void(int64_t done)>& progress) {
  Merger merger(word_counts);
  std::vector<BpeModel::Merge> learned;
  int32_t left = 0, right = 0;
  while (static_cast<int32_t>(learned.size()) < merges && merger.best(left, right)) {
    const int32_t merged = 256 + static_cast<int32_t>(learned.size());
    merger.merge(left, right, merged);
    learned.push_back({left, right, merged});
    if (progress && learned.size() % 64 == 0) progress(static_cast<int64_t>(learned.size()));
  }
  return learned;
}

}  // namespace moba
