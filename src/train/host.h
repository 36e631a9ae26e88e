// The machine and the process, for run.json, metrics and predictions.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace moba {

std::string cpu_name();
int64_t peak_rss_bytes();  // of this process so far
int64_t current_rss_bytes();
int64_t total_memory_bytes();                      // of the machine, or of the container's limit if that is lower
int64_t free_disk_bytes(const std::string& path);  // of the nearest folder that exists
nlohmann::ordered_json host_description();         // host, cpu, threads, kernel variant, memory

}  // namespace moba
