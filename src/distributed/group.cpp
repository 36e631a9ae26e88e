#include "src/distributed/group.h"

#include <algorithm>

namespace moba {
namespace {

// Large tensors are worked on in blocks of this size: scratch memory is bounded, and a block stays in the cache while it is added.
constexpr int64_t kBlockBytes = 4 << 20;

int64_t cut(int64_t n, int slot, int slots) { return n / slots * slot + n % slots * slot / slots; }

}  // namespace

Group::Group(std::shared_ptr<Endpoint> endpoint, Service& service, std::vector<int> members, int tag, std::string label)
    : endpoint_(std::move(endpoint)), service_(service), members_(std::move(members)), tag_(tag), label_(std::move(label)) {
  const auto mine = std::find(members_.begin(), members_.end(), endpoint_->rank());
  MOBA_ASSERT(mine != members_.end());
  rank_ = static_cast<int>(mine - members_.begin());
  while (size() % (2 * block_) == 0) block_ *= 2;
  blocks_ = size() / block_;
}

void Group::exchange(std::vector<Message> sends, std::vector<Message> receives) {
  std::erase_if(sends, [](const Message& m) { return m.bytes == 0; });
  std::erase_if(receives, [](const Message& m) { return m.bytes == 0; });
  if (sends.empty() && receives.empty()) return;
  for (Message& m : sends) m.peer = members_[static_cast<size_t>(m.peer)];
  for (Message& m : receives) m.peer = members_[static_cast<size_t>(m.peer)];
  const std::unique_ptr<Exchange> exchange = endpoint_->start(sends, receives, tag_);
  service_.finish(*exchange, operation_);
}

std::unique_ptr<Exchange> Group::start_point_to_point(std::vector<Message> sends, std::vector<Message> receives) {
  for (Message& m : sends) m.peer = members_[static_cast<size_t>(m.peer)];
  for (Message& m : receives) m.peer = members_[static_cast<size_t>(m.peer)];
  return endpoint_->start(sends, receives, tag_ + 1);
}

char* Group::scratch(int which, int64_t bytes) {
  Tensor& tensor = scratch_[which];
  if (!tensor.defined() || tensor.numel() < bytes) tensor = Tensor::empty({bytes}, DType::u8, endpoint_->device());
  return static_cast<char*>(tensor.raw());
}

int Group::slot_of(int rank) const {
  int slot = rank / block_;
  for (int d = 1, half = size() / 2; d < block_; d *= 2, half /= 2) {
    if (rank & d) slot += half;
  }
  return slot;
}

int Group::owner_of(int slot) const {
  int rank = slot % blocks_ * block_;
  for (int d = 1, half = size() / 2; d < block_; d *= 2, half /= 2) {
    if (slot / half % 2 == 1) rank += d;
  }
  return rank;
}

std::vector<Group::Piece> Group::slots_of(char* data, int64_t n, int64_t item) const {
  std::vector<Piece> slots;
  for (int s = 0; s < size(); ++s) {
    const int64_t begin = cut(n, s, size()), end = cut(n, s + 1, size());
    slots.push_back({data + begin * item, (end - begin) * item});
  }
  return slots;
}

// parts[q] += parts[q + d], d = 1, 2, 4, ...; the result lands in `mine`, which is one of the parts.
void Group::add_tree(std::vector<char*> parts, char* mine, int64_t n, DType dtype, ReduceOp op) {
  const size_t count = parts.size();
  for (size_t d = 1; d < count; d *= 2) {
    for (size_t q = 0; q + d < count; q += 2 * d) endpoint_->combine(dtype, op, n, parts[q], parts[q + d], parts[q]);
  }
  endpoint_->copy(mine, parts[0], n * static_cast<int64_t>(dtype_size(dtype)));
}

void Group::all_reduce_whole(char* data, int64_t n, DType dtype, ReduceOp op) {
  const int64_t bytes = n * static_cast<int64_t>(dtype_size(dtype));
  for (int d = 1; d < block_; d *= 2) {
    char* other = scratch(0, bytes);
    exchange({{data, bytes, rank_ ^ d}}, {{other, bytes, rank_ ^ d}});
    const bool upper = rank_ & d;
    endpoint_->combine(dtype, op, n, upper ? other : data, upper ? data : other, data);
  }
  if (blocks_ == 1) return;
  char* others = scratch(0, bytes * blocks_);
  std::vector<Message> sends, receives;
  std::vector<char*> parts;
  for (int q = 0; q < blocks_; ++q) {
    const int peer = q * block_ + rank_ % block_;
    parts.push_back(peer == rank_ ? data : others + q * bytes);
    if (peer == rank_) continue;
    sends.push_back({data, bytes, peer});
    receives.push_back({parts.back(), bytes, peer});
  }
  exchange(std::move(sends), std::move(receives));
  add_tree(std::move(parts), data, n, dtype, op);
}

void Group::reduce_scatter_in_place(char* data, int64_t n, DType dtype, ReduceOp op) {
  const auto item = static_cast<int64_t>(dtype_size(dtype));
  int low = 0, high = size();  // slots that this rank still adds up
  for (int d = 1; d < block_; d *= 2) {
    const int middle = (low + high) / 2;
    const bool upper = rank_ & d;
    const int give = upper ? low : middle, keep = upper ? middle : low;
    const int64_t give_at = cut(n, give, size()), give_n = cut(n, upper ? middle : high, size()) - give_at;
    const int64_t keep_at = cut(n, keep, size()), keep_n = cut(n, upper ? high : middle, size()) - keep_at;
    char* other = scratch(0, keep_n * item);
    char* own = data + keep_at * item;
    exchange({{data + give_at * item, give_n * item, rank_ ^ d}}, {{other, keep_n * item, rank_ ^ d}});
    endpoint_->combine(dtype, op, keep_n, upper ? other : own, upper ? own : other, own);
    (upper ? low : high) = middle;
  }
  if (blocks_ == 1) return;
  const std::vector<Piece> slots = slots_of(data, n, item);
  const Piece mine = slots[static_cast<size_t>(slot_of(rank_))];
  char* others = scratch(0, mine.bytes * blocks_);
  std::vector<Message> sends, receives;
  std::vector<char*> parts;
  for (int q = 0; q < blocks_; ++q) {
    const int peer = q * block_ + rank_ % block_;
    parts.push_back(peer == rank_ ? mine.data : others + q * mine.bytes);
    if (peer == rank_) continue;
    const Piece& theirs = slots[static_cast<size_t>(low) + static_cast<size_t>(q)];
    sends.push_back({theirs.data, theirs.bytes, peer});
    receives.push_back({parts.back(), mine.bytes, peer});
  }
  exchange(std::move(sends), std::move(receives));
  add_tree(std::move(parts), mine.data, mine.bytes / item, dtype, op);
}

// The way of reduce_scatter_in_place backwards.
void Group::gather_slots(const std::vector<Piece>& slots) {
  const auto append = [&](std::vector<Message>& messages, int begin, int end, int peer) {
    for (int s = begin; s < end; ++s) {
      const Piece& p = slots[static_cast<size_t>(s)];
      Message* last = messages.empty() ? nullptr : &messages.back();
      if (last && static_cast<char*>(last->data) + last->bytes == p.data && last->peer == peer)
        last->bytes += p.bytes;
      else
        messages.push_back({p.data, p.bytes, peer});
    }
  };
  const int mine = slot_of(rank_);
  int low = mine - rank_ / block_, high = low + blocks_;
  std::vector<Message> sends, receives;
  for (int q = 0; q < blocks_; ++q) {
    const int peer = q * block_ + rank_ % block_;
    if (peer == rank_) continue;
    append(sends, mine, mine + 1, peer);
    append(receives, low + q, low + q + 1, peer);
  }
  exchange(std::move(sends), std::move(receives));
  for (int d = block_ / 2; d >= 1; d /= 2) {
    const int width = high - low;
    const bool upper = rank_ & d;
    const int theirs = upper ? low - width : high;
    std::vector<Message> give, take;
    append(give, low, high, rank_ ^ d);
    append(take, theirs, theirs + width, rank_ ^ d);
    exchange(std::move(give), std::move(take));
    low = std::min(low, theirs);
    high = low + 2 * width;
  }
}

void Group::all_reduce(void* data, int64_t n, DType dtype, ReduceOp op) {
  const auto item = static_cast<int64_t>(dtype_size(dtype));
  if (n * item <= small_bytes_) return all_reduce_whole(static_cast<char*>(data), n, dtype, op);
  for (int64_t begin = 0, block = kBlockBytes / item; begin < n; begin += block) {
    char* at = static_cast<char*>(data) + begin * item;
    const int64_t count = std::min(block, n - begin);
    reduce_scatter_in_place(at, count, dtype, op);
    gather_slots(slots_of(at, count, item));
  }
}

void Group::reduce(void* data, int64_t n, DType dtype, int root) {
  const auto item = static_cast<int64_t>(dtype_size(dtype));
  if (n * item <= small_bytes_) return all_reduce_whole(static_cast<char*>(data), n, dtype, ReduceOp::sum);
  for (int64_t begin = 0, block = kBlockBytes / item; begin < n; begin += block) {
    char* at = static_cast<char*>(data) + begin * item;
    const int64_t count = std::min(block, n - begin);
    reduce_scatter_in_place(at, count, dtype, ReduceOp::sum);
    const std::vector<Piece> slots = slots_of(at, count, item);
    std::vector<Message> sends, receives;
    for (int r = 0; r < size(); ++r) {
      const Piece& p = slots[static_cast<size_t>(slot_of(r))];
      if (r == rank_ && r != root) sends.push_back({p.data, p.bytes, root});
      if (r != rank_ && rank_ == root) receives.push_back({p.data, p.bytes, r});
    }
    exchange(std::move(sends), std::move(receives));
  }
}

void Group::reduce_scatter(const void* in, void* out, int64_t piece, DType dtype) {
  const auto item = static_cast<int64_t>(dtype_size(dtype));
  const char* source = static_cast<const char*>(in);
  if (piece * item * size() <= small_bytes_) {
    char* work = scratch(1, piece * item * size());
    endpoint_->copy(work, source, piece * item * size());
    all_reduce_whole(work, piece * size(), dtype, ReduceOp::sum);
    return endpoint_->copy(out, work + rank_ * piece * item, piece * item);
  }
  const int64_t block = std::max<int64_t>(1, kBlockBytes / item / size());
  for (int64_t begin = 0; begin < piece; begin += block) {
    const int64_t count = std::min(block, piece - begin);
    char* work = scratch(1, count * item * size());
    for (int s = 0; s < size(); ++s) endpoint_->copy(work + s * count * item, source + (owner_of(s) * piece + begin) * item, count * item);
    reduce_scatter_in_place(work, count * size(), dtype, ReduceOp::sum);
    endpoint_->copy(static_cast<char*>(out) + begin * item, work + slot_of(rank_) * count * item, count * item);
  }
}

void Group::all_gather(const void* in, void* out, int64_t bytes) {
  char* to = static_cast<char*>(out);
  std::vector<Piece> slots;
  for (int s = 0; s < size(); ++s) slots.push_back({to + owner_of(s) * bytes, bytes});
  endpoint_->copy(to + rank_ * bytes, in, bytes);
  gather_slots(slots);
}

void Group::broadcast(void* data, int64_t bytes, int root) {
  char* at = static_cast<char*>(data);
  if (bytes <= small_bytes_) {  // along the tree of distances, root in place of rank 0
    const int position = (rank_ - root + size()) % size();
    int d = 1;
    while (d < size() && !(position & d)) d *= 2;
    if (position != 0) exchange({}, {{at, bytes, (position - d + root) % size()}});
    std::vector<Message> sends;
    for (d /= 2; d >= 1; d /= 2) {
      if (position + d < size()) sends.push_back({at, bytes, (position + d + root) % size()});
    }
    return exchange(std::move(sends), {});
  }
  // A piece to each rank, then each gives its piece to all: two times the bytes instead of log2(P) times.
  const std::vector<Piece> slots = slots_of(at, bytes, 1);
  std::vector<Message> sends, receives;
  for (int r = 0; r < size(); ++r) {
    const Piece& p = slots[static_cast<size_t>(slot_of(r))];
    if (rank_ == root && r != root) sends.push_back({p.data, p.bytes, r});
    if (r == rank_ && r != root) receives.push_back({p.data, p.bytes, root});
  }
  exchange(std::move(sends), std::move(receives));
  gather_slots(slots);
}

void Group::barrier() {
  char* token = scratch(0, 2);
  for (int d = 1; d < size(); d *= 2)
    exchange({{token, 1, (rank_ + d) % size()}}, {{token + 1, 1, (rank_ - d % size() + size()) % size()}});
}

void Group::all_to_all(const void* in, std::span<const int64_t> send_bytes, void* out, std::span<const int64_t> receive_bytes) {
  char* from = const_cast<char*>(static_cast<const char*>(in));
  char* to = static_cast<char*>(out);
  std::vector<Message> sends, receives;
  for (int r = 0; r < size(); ++r) {
    const int64_t out_bytes = send_bytes[static_cast<size_t>(r)], in_bytes = receive_bytes[static_cast<size_t>(r)];
    if (r == rank_) {
      endpoint_->copy(to, from, out_bytes);
    } else {
      sends.push_back({from, out_bytes, r});
      receives.push_back({to, in_bytes, r});
    }
    from += out_bytes;
    to += in_bytes;
  }
  exchange(std::move(sends), std::move(receives));
}

}  // namespace moba
