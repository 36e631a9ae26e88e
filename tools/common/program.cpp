#include "tools/common/program.h"

#include <cstdio>
#include <new>
#include <stdexcept>

#include "kernels/common/check.h"

namespace moba {
namespace {

int failed(const std::string& prefix, const std::string& what, ExitCode code) {
  std::fprintf(stderr, "%s%s\n", prefix.c_str(), what.c_str());
  return static_cast<int>(code);
}

int ended(const std::string& prefix, const std::function<int()>& body) {
  constexpr const char* kTooLarge = "not enough memory for these sizes; choose smaller ones";
  try {
    return body();
  } catch (const Error& error) {
    return failed(prefix, error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return failed(prefix, kTooLarge, ExitCode::usage);
  } catch (const std::length_error&) {  // more elements than a vector can ever have
    return failed(prefix, kTooLarge, ExitCode::usage);
  } catch (const std::exception& error) {
    return failed(prefix, std::string("error: ") + error.what(), ExitCode::io);
  }
}

}  // namespace

int run_program(const std::string& prefix, const std::function<int()>& body) { return check_stdout(prefix, ended(prefix, body)); }

int check_stdout(const std::string& prefix, int code) {
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (written || code != static_cast<int>(ExitCode::done)) return code;
  return failed(prefix, "the output cannot be written (is the disk full?); free some space or send it elsewhere", ExitCode::io);
}

}  // namespace moba
