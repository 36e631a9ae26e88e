#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "src/interop/safetensors.h"

namespace moba {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Tensor name -> shard, from model.safetensors.index.json.
std::map<std::string, std::string> read_index(const std::string& path) {
  const auto fail = [&](const std::string& why) { throw Error(fmt::format("{} is damaged: {}", path, why), ExitCode::corrupt_input); };
  std::map<std::string, std::string> shard_of;
  try {
    const json index = json::parse(read_whole_file(path));
    for (const auto& [name, shard] : index.at("weight_map").items()) shard_of[name] = shard.get<std::string>();
  } catch (const json::exception& error) {
    fail(error.what());
  }
  // A shard lies beside its index; anything else in a downloaded index is not followed.
  for (const auto& [name, shard] : shard_of)
    if (shard.empty() || shard.find('/') != std::string::npos || shard == "..") fail(fmt::format("tensor {} in shard \"{}\"", name, shard));
  return shard_of;
}

}  // namespace

WeightFiles::WeightFiles(const std::string& dir) {
  const std::string whole = dir + "/model.safetensors";
  const std::string index = dir + "/model.safetensors.index.json";
  const bool sharded = !fs::exists(whole) && fs::exists(index);
  if (!sharded && !fs::exists(whole))
    throw Error(fmt::format("{} has neither model.safetensors nor model.safetensors.index.json", dir), ExitCode::corrupt_input);
  std::map<std::string, std::string> shard_of;
  std::set<std::string> shards = {"model.safetensors"};
  if (sharded) {
    shard_of = read_index(index);
    shards.clear();
    for (const auto& [name, shard] : shard_of) shards.insert(shard);
  }
  for (const std::string& shard : shards) {
    files_.emplace_back(dir + "/" + shard);
    for (const auto& [name, entry] : files_.back().entries()) {
      if (!entries_.emplace(name, entry).second)
        throw Error(fmt::format("{}: tensor {} lies in two shards", dir, name), ExitCode::corrupt_input);
      file_index_[name] = files_.size() - 1;
    }
  }
  for (const auto& [name, shard] : shard_of)
    if (!entries_.contains(name)) throw Error(fmt::format("{}: shard {} lacks tensor {}", dir, shard, name), ExitCode::corrupt_input);
}

const SafetensorsReader& WeightFiles::file_of(const std::string& name) const {
  const auto found = file_index_.find(name);
  MOBA_ASSERT(found != file_index_.end());
  return files_[found->second];
}

}  // namespace moba
