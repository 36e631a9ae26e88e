#include "src/train/host.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/common/dispatch.h"
#include "kernels/common/threads.h"

namespace moba {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

int64_t current_rss_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t total_memory_bytes() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  for (const char* limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(limit);
    int64_t value = 0;
    if (file >> value && value > 0 && value < bytes) bytes = value;
  }
  return bytes;
}

int64_t free_disk_bytes(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path folder = fs::absolute(path, error);
  while (!fs::exists(folder, error) && folder.has_parent_path() && folder != folder.parent_path()) folder = folder.parent_path();
  const fs::space_info space = fs::space(folder, error);
  return error ? 0 : static_cast<int64_t>(space.available);
}

nlohmann::ordered_json host_description() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return {{"host", name},
          {"cpu", cpu_name()},
          {"threads", num_threads()},
          {"kernels", kernels::isa_name(kernels::active_isa())},
          {"memory_bytes", total_memory_bytes()}};
}

}  // namespace moba
