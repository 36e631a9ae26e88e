// MANIFEST.json: the files of a checkpoint with size, XXH3 and SHA-256. Written last, so its presence says that the rest is there.
#pragma once
#include <map>
#include <string>

#include "src/interop/hashed_file.h"

namespace moba {

constexpr const char* kManifestName = "MANIFEST.json";

using Manifest = std::map<std::string, FileDigest>;  // file name -> digest

void write_manifest(const std::string& dir, int64_t step, const Manifest& manifest);
Manifest read_manifest(const std::string& dir);  // Error(corrupt_input) if missing or damaged

// A manifest as one string, to hand it to another rank.
std::string manifest_text(const Manifest& manifest);
void add_manifest(const std::string& text, Manifest& manifest);

}  // namespace moba
