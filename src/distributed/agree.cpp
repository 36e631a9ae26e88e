#include "src/distributed/agree.h"

#include <algorithm>
#include <new>

namespace moba {
namespace {

// One byte says how it went (the exit code), the rest is the message or the result.
std::string outcome(const std::function<std::string()>& f) {
  const auto failed = [](ExitCode code, const std::string& what) { return std::string(1, static_cast<char>(code)) + what; };
  try {
    return std::string(1, '\0') + f();
  } catch (const OutOfMemory&) {
    throw;  // a rank without memory is lost
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const Error& error) {
    return failed(error.code(), error.what());
  } catch (const std::exception& error) {
    return failed(ExitCode::io, error.what());
  }
}

bool is_error(const std::string& outcome) { return outcome.empty() || outcome[0] != '\0'; }

[[noreturn]] void throw_shared(const std::string& outcome, const std::string& who) {
  throw SharedError(who + outcome.substr(1), static_cast<ExitCode>(outcome[0]));
}

}  // namespace

std::string from_root(Communicator& ranks, const char* what, const std::function<std::string()>& f) {
  if (ranks.size() == 1) return f();
  const std::string of_root = ranks.all_gather_strings(ranks.rank() == 0 ? outcome(f) : std::string(1, '\0'), what).front();
  if (is_error(of_root)) throw_shared(of_root, "");
  return of_root.substr(1);
}

void together(Communicator& ranks, const char* what, const std::function<void()>& f) {
  if (ranks.size() == 1) return f();
  const auto all = ranks.all_gather_strings(outcome([&] { return f(), std::string(); }), what);
  const auto first = std::ranges::find_if(all, is_error);
  if (first == all.end()) return;
  const bool alike = std::ranges::all_of(all, [&](const std::string& o) { return o == *first; });
  throw_shared(*first, alike ? "" : fmt::format("rank {}: ", first - all.begin()));
}

}  // namespace moba
