// How every program ends: what went wrong is a sentence on stderr and an exit code, and results count only once they are written.
#pragma once
#include <functional>
#include <string>

namespace moba {

// The exit code of body(), or that of what it throws, whose text is printed after `prefix` ("moba-data: ").
int run_program(const std::string& prefix, const std::function<int()>& body);

// `code`, or after success ExitCode::io when what was printed could not be written (a full disk behind "> file").
int check_stdout(const std::string& prefix, int code);

}  // namespace moba
