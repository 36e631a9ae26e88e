// Encoding: pieces of the pre-tokenizer, each merged on its own; recent short pieces are remembered per thread.
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <queue>
#include <unordered_map>

#include "kernels/common/check.h"
#include "src/data/bpe_model.h"
#include "src/data/merge_table.h"
#include "src/data/pretokenizer.h"

namespace moba {
namespace {

constexpr size_t kScanLimit = 48;  // symbols; longer pieces use a heap, as scanning is quadratic

// The ids of short pieces seen before, direct-mapped: a newer piece takes the slot. One per thread, for one tokenizer at a time.
class PieceCache {
 public:
  static constexpr size_t kPieceBytes = 22, kIds = 10;
  struct Slot {
    uint8_t bytes = 0, ids = 0;
    char piece[kPieceBytes];
    int32_t id[kIds];
  };

  static PieceCache& of_thread(uint64_t owner) {
    static thread_local PieceCache cache;
    if (cache.owner_ != owner) {
      cache.slots_.assign(kSlots, Slot{});
      cache.owner_ = owner;
    }
    return cache;
  }
  Slot& slot(std::string_view piece) { return slots_[XXH3_64bits(piece.data(), piece.size()) & (kSlots - 1)]; }

 private:
  static constexpr size_t kSlots = 1 << 14;  // 1 MiB
  std::vector<Slot> slots_;
  uint64_t owner_ = 0;
};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeModel model, std::string json);
  void encode(std::string_view text, std::vector<int32_t>& out) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(model_.tokens.size()); }
  int32_t eos_token_id() const override { return model_.eos; }
  int32_t bos_token_id() const override { return model_.bos; }
  std::string json() const override { return json_; }
  bool may_cut_lines() const override { return model_.patterns.size() == 1 && is_named_pattern(model_.patterns.front()); }
  int32_t special_token_id(std::string_view token) const override;

 private:
  void encode_piece(std::string_view piece, std::vector<int32_t>& out) const;
  void merge_by_scan(std::vector<int32_t>& ids, size_t begin) const;
  void merge_by_heap(std::vector<int32_t>& ids, size_t begin) const;

  BpeModel model_;
  std::string json_;
  PreTokenizer pre_tokenizer_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;
  std::unordered_map<std::string_view, int32_t> whole_pieces_;  // only with ignore_merges
  uint64_t cache_owner_;
};

BpeTokenizer::BpeTokenizer(BpeModel model, std::string json)
    : model_(std::move(model)), json_(std::move(json)), pre_tokenizer_(model_.patterns), merges_(model_.merges) {
  static std::atomic<uint64_t> tokenizers{0};
  cache_owner_ = ++tokenizers;
  std::vector<bool> special(model_.tokens.size(), false);
  for (const auto& s : model_.specials) special.at(s.id) = true;
  byte_ids_.fill(-1);
  for (size_t id = 0; id < model_.tokens.size(); ++id) {
    const std::string& bytes = model_.tokens[id];
    if (bytes.empty() || special[id]) continue;
    if (bytes.size() == 1) byte_ids_[static_cast<uint8_t>(bytes[0])] = static_cast<int32_t>(id);
    if (model_.ignore_merges) whole_pieces_.emplace(bytes, static_cast<int32_t>(id));
  }
  for (int byte = 0; byte < 256; ++byte)
    MOBA_CHECK(byte_ids_[byte] >= 0, "the vocabulary has no token for byte 0x{:02x}: not a byte-level one", byte);
  for (const auto& m : model_.merges) {
    MOBA_CHECK(model_.tokens.at(m.left) + model_.tokens.at(m.right) == model_.tokens.at(m.merged),
               "merge of tokens {} and {} does not give token {}", m.left, m.right, m.merged);
  }
}

void BpeTokenizer::encode(std::string_view text, std::vector<int32_t>& out) const {
  PieceCache& cache = PieceCache::of_thread(cache_owner_);
  out.reserve(out.size() + text.size() / 4);
  pre_tokenizer_.split(text, [&](std::string_view piece) {
    if (piece.size() == 1) return out.push_back(byte_ids_[static_cast<uint8_t>(piece[0])]);
    if (piece.size() > PieceCache::kPieceBytes) return encode_piece(piece, out);
    auto& slot = cache.slot(piece);
    if (slot.bytes == piece.size() && std::memcmp(slot.piece, piece.data(), piece.size()) == 0) {
      out.insert(out.end(), slot.id, slot.id + slot.ids);
      return;
    }
    const size_t begin = out.size();
    encode_piece(piece, out);
    const size_t count = out.size() - begin;
    if (count > PieceCache::kIds) return;
    slot.bytes = static_cast<uint8_t>(piece.size());
    slot.ids = static_cast<uint8_t>(count);
    std::memcpy(slot.piece, piece.data(), piece.size());
    std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(begin), count, slot.id);
  });
}

void BpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& out) const {
  if (const auto whole = whole_pieces_.find(piece); whole != whole_pieces_.end()) {
    out.push_back(whole->second);
    return;
  }
  const size_t begin = out.size();
  for (const char byte : piece) out.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  if (piece.size() <= kScanLimit)
    merge_by_scan(out, begin);
  else
    merge_by_heap(out, begin);
}

// Again and again the pair of lowest rank, the leftmost on ties.
void BpeTokenizer::merge_by_scan(std::vector<int32_t>& ids, size_t begin) const {
  int32_t* id = ids.data() + begin;
  size_t count = ids.size() - begin;
  std::array<uint32_t, kScanLimit> rank;  // of (i, i + 1)
  for (size_t i = 0; i + 1 < count; ++i) rank[i] = merges_.find(id[i], id[i + 1]).rank;
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(rank.begin(), rank.begin() + count - 1) - rank.begin());
    if (rank[best] == MergeTable::kNoRank) break;
    id[best] = model_.merges[rank[best]].merged;
    std::copy(id + best + 2, id + count, id + best + 1);
    std::copy(rank.begin() + best + 1, rank.begin() + count - 1, rank.begin() + best);
    --count;
    if (best > 0) rank[best - 1] = merges_.find(id[best - 1], id[best]).rank;
    if (best + 1 < count) rank[best] = merges_.find(id[best], id[best + 1]).rank;
  }
  ids.resize(begin + count);
}

// The same in O(n log n): a linked list of symbols and a heap of candidate pairs, outdated ones skipped when popped.
void BpeTokenizer::merge_by_heap(std::vector<int32_t>& ids, size_t begin) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  struct Candidate {
    uint32_t rank, at;
    int32_t left, right;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const auto count = static_cast<uint32_t>(ids.size() - begin);
  int32_t* id = ids.data() + begin;
  std::vector<uint32_t> next(count), previous(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto propose = [&](uint32_t left, uint32_t right) {
    const uint32_t rank = merges_.find(id[left], id[right]).rank;
    if (rank != MergeTable::kNoRank) candidates.push({rank, left, id[left], id[right]});
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
    if (i + 1 < count) propose(i, i + 1);
  }
  while (!candidates.empty()) {
    const Candidate c = candidates.top();
    candidates.pop();
    const uint32_t right = next[c.at];
    if (id[c.at] != c.left || right == kEnd || id[right] != c.right) continue;
    id[c.at] = model_.merges[c.rank].merged;
    id[right] = -1;  // gone
    next[c.at] = next[right];
    if (next[c.at] != kEnd) {
      previous[next[c.at]] = c.at;
      propose(c.at, next[c.at]);
    }
    if (previous[c.at] != kEnd) propose(previous[c.at], c.at);
  }
  ids.erase(std::remove(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end(), -1), ids.end());
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    MOBA_CHECK(id >= 0 && id < vocab_size(), "token id {} is not in the vocabulary of {}", id, vocab_size());
    text += model_.tokens[id];
  }
  return text;
}

int32_t BpeTokenizer::special_token_id(std::string_view token) const {
  for (const auto& s : model_.specials) {
    if (s.content == token) return s.id;
  }
  return -1;
}

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeModel model, std::string json) {
  return std::make_unique<BpeTokenizer>(std::move(model), std::move(json));
}

}  // namespace moba
