#include "src/data/output_file.h"

#include <unistd.h>

#include <filesystem>

#include "kernels/common/check.h"

namespace moba {
namespace fs = std::filesystem;

void check_output_file(const std::string& output, const std::vector<std::string>& inputs) {
  std::error_code error;
  const fs::file_status status = fs::status(output, error);
  if (!fs::exists(status)) return;
  MOBA_CHECK(fs::is_regular_file(status), "{} exists and is not a regular file; choose another name for the output", output);
  for (const std::string& input : inputs)
    MOBA_CHECK(!fs::equivalent(output, input, error), "{} is the input {}, which the output would replace; choose another name", output,
               input);
}

std::string unused_name_beside(const std::string& path) {
  for (int64_t n = 0;; ++n) {
    const std::string name = fmt::format("{}.{}-{}.tmp", path, ::getpid(), n);
    std::error_code error;
    if (!fs::exists(fs::symlink_status(name, error))) return name;
  }
}

}  // namespace moba
