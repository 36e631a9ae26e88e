// The little that a backend has to do: move bytes between ranks, and add on the memory it moves. Everything above (tree, groups,
// order, time limit) is written once. Used on the communication thread only.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "src/distributed/communicator.h"

namespace moba {

// One message. Messages of one tag between two ranks arrive in the order in which they were started.
struct Message {
  void* data;
  int64_t bytes;
  int peer;  // rank of the world
};

// Messages under way.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual bool done() = 0;  // also drives the transport; throws Error
};

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* backend() const = 0;
  virtual Device device() const { return {}; }
  virtual std::unique_ptr<Exchange> start(std::span<const Message> sends, std::span<const Message> receives, int tag) = 0;
  virtual void progress() {}  // called now and then while nothing is under way
  virtual void close() {}     // all ranks, at an orderly end
  // Two calls of start() may be under way at once (point to point beside a collective).
  virtual bool concurrent() const { return true; }

  // out = lower (op) upper; out may be either. lower belongs to the lower ranks: operands never change places.
  virtual void combine(DType dtype, ReduceOp op, int64_t n, const void* lower, const void* upper, void* out);
  virtual void copy(void* to, const void* from, int64_t bytes);
};

// On host memory, one thread: the compute threads belong to the model.
void combine_host(DType dtype, ReduceOp op, int64_t n, const void* lower, const void* upper, void* out);

}  // namespace moba
