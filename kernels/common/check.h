// Errors. A user's mistake throws Error with the remedy; a programmer's mistake asserts.
#pragma once
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace moba {

// Exit codes of every program; an Error carries the one its program ends with.
enum class ExitCode : int { done = 0, usage = 2, corrupt_input = 3, numeric = 4, io = 5, rank_lost = 6, preempted = 75 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, ExitCode code = ExitCode::usage) : std::runtime_error(what), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// The system refused memory. An error of the process that met it, never shared as a verdict of all ranks.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

}  // namespace moba

// MOBA_CHECK(condition, format, args...): user errors.
#define MOBA_CHECK(cond, ...)                        \
  do {                                               \
    if (!(cond)) [[unlikely]]                        \
      throw ::moba::Error(fmt::format(__VA_ARGS__)); \
  } while (0)

// MOBA_ASSERT(condition): bugs in this code base; on in every build, so only outside hot loops.
#define MOBA_ASSERT(cond)                                                               \
  do {                                                                                  \
    if (!(cond)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #cond); \
      std::abort();                                                                     \
    }                                                                                   \
  } while (0)
