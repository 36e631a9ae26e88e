#include "src/train/checkpoint_manifest.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/common/check.h"
#include "src/train/checkpoint.h"

namespace moba {

using nlohmann::json;

namespace {

json files_of(const Manifest& manifest) {
  json files = json::object();
  for (const auto& [name, digest] : manifest) files[name] = {{"bytes", digest.bytes}, {"xxh3", digest.xxh3}, {"sha256", digest.sha256}};
  return files;
}

void add_files(const json& files, Manifest& manifest) {
  for (const auto& [name, entry] : files.items())
    manifest[name] = {.bytes = entry.at("bytes").get<int64_t>(),
                      .xxh3 = entry.at("xxh3").get<std::string>(),
                      .sha256 = entry.at("sha256").get<std::string>()};
}

}  // namespace

std::string manifest_text(const Manifest& manifest) { return files_of(manifest).dump(); }
void add_manifest(const std::string& text, Manifest& manifest) { add_files(json::parse(text), manifest); }

void write_manifest(const std::string& dir, int64_t step, const Manifest& manifest) {
  const json content = {{"format_version", 1}, {"step", step}, {"files", files_of(manifest)}};
  write_hashed_file(dir + "/" + kManifestName, content.dump(2) + "\n");
}

Manifest read_manifest(const std::string& dir) {
  const std::string path = dir + "/" + kManifestName;
  if (!std::filesystem::exists(path))
    throw Error(fmt::format("{} is incomplete: it has no {}", dir, kManifestName), ExitCode::corrupt_input);
  Manifest manifest;
  try {
    add_files(json::parse(read_whole_file(path)).at("files"), manifest);
  } catch (const json::exception& error) {
    throw Error(fmt::format("{} is damaged: {}", path, std::string(error.what()).substr(0, 200)), ExitCode::corrupt_input);
  }
  return manifest;
}

void verify_checkpoint(const std::string& dir) {
  for (const auto& [name, expected] : read_manifest(dir)) {
    const std::string path = dir + "/" + name;
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (error == std::errc::no_such_file_or_directory)
      throw Error(fmt::format("{} is missing, but {} lists it", path, kManifestName), ExitCode::corrupt_input);
    if (error) throw Error(fmt::format("cannot read {}: {}", path, error.message()), ExitCode::io);
    if (static_cast<int64_t>(size) != expected.bytes)
      throw Error(fmt::format("{} has {} bytes, {} says {}", path, size, kManifestName, expected.bytes), ExitCode::corrupt_input);
    if (hash_file(path).xxh3 != expected.xxh3)
      throw Error(fmt::format("{} is damaged: its hash is not the one in {}", path, kManifestName), ExitCode::corrupt_input);
  }
}

}  // namespace moba
