// What one rank found out or failed at, made known to all, so that all go on or end in the same way.
#pragma once
#include <functional>
#include <string>

#include "kernels/common/check.h"
#include "src/distributed/communicator.h"

namespace moba {

// Running out of memory is not shared: that rank ends, and the others because it is lost.

// An Error that every rank throws alike; rank 0 prints it for all.
class SharedError : public Error {
 public:
  using Error::Error;
};

// Runs f on rank 0 and returns its result on every rank; what it throws is thrown on every rank as SharedError.
std::string from_root(Communicator& ranks, const char* what, const std::function<std::string()>& f);

// Runs f on every rank. If it throws on any, every rank throws SharedError with the message of the lowest such rank, which is named
// unless all failed alike.
void together(Communicator& ranks, const char* what, const std::function<void()>& f);

}  // namespace moba
