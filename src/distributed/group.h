// A set of ranks with an order of their own, and the collectives among them: written once over Endpoint, on the communication thread.
//
// Order of a sum: at distance d = 1, 2, 4, ... rank r (a multiple of 2d) adds what r + d holds, if there is such a rank.
// P ranks are B * Q, B the largest power of two in P. Ranks of one block of B exchange with r ^ d; then the Q ranks of one position
// in their blocks exchange all with all and add Q parts in the same order. Small tensors move whole, large ones by halves (half the
// bytes stay between neighbours), in both cases along the same tree: the bits are the same.
#pragma once
#include <functional>

#include "src/distributed/service.h"

namespace moba {

class Group {
 public:
  Group(std::shared_ptr<Endpoint> endpoint, Service& service, std::vector<int> members, int tag, std::string label);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  const std::vector<int>& members() const { return members_; }
  const std::string& label() const { return label_; }
  Endpoint& endpoint() const { return *endpoint_; }
  const std::shared_ptr<Endpoint>& shared_endpoint() const { return endpoint_; }
  // Name of the operation that the next calls belong to, for messages.
  void set_operation(std::string name) { operation_ = std::move(name); }

  // Messages with ranks of this group as peers; ends when all have left and arrived.
  void exchange(std::vector<Message> sends, std::vector<Message> receives);
  std::unique_ptr<Exchange> start_point_to_point(std::vector<Message> sends, std::vector<Message> receives);

  void all_reduce(void* data, int64_t n, DType dtype, ReduceOp op);
  void reduce(void* data, int64_t n, DType dtype, int root);
  void reduce_scatter(const void* in, void* out, int64_t piece, DType dtype);  // in: size() pieces
  void all_gather(const void* in, void* out, int64_t bytes);
  void broadcast(void* data, int64_t bytes, int root);
  void barrier();
  void all_to_all(const void* in, std::span<const int64_t> send_bytes, void* out, std::span<const int64_t> receive_bytes);

  // Tensors of up to this many bytes move whole; same on all ranks. For tests.
  void set_small_bytes(int64_t bytes) { small_bytes_ = bytes; }

 private:
  struct Piece {
    char* data;
    int64_t bytes;
  };
  int slot_of(int rank) const;  // position of a rank's piece when the halves of each level lie side by side
  int owner_of(int slot) const;
  char* scratch(int which, int64_t bytes);
  void all_reduce_whole(char* data, int64_t n, DType dtype, ReduceOp op);
  void reduce_scatter_in_place(char* data, int64_t n, DType dtype, ReduceOp op);  // the piece of slot_of(rank()) is complete then
  void add_tree(std::vector<char*> parts, char* mine, int64_t n, DType dtype, ReduceOp op);
  void gather_slots(const std::vector<Piece>& slots);  // own slot filled -> all filled
  std::vector<Piece> slots_of(char* data, int64_t n, int64_t item) const;

  std::shared_ptr<Endpoint> endpoint_;
  Service& service_;
  std::vector<int> members_;
  int rank_ = 0, tag_, block_ = 1, blocks_ = 1;  // B, Q
  std::string label_, operation_;
  int64_t small_bytes_ = 32 << 10;
  Tensor scratch_[2];
};

}  // namespace moba
