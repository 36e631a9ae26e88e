#include <xxhash.h>

#include <filesystem>
#include <memory>

#include "src/interop/safetensors.h"
#include "src/train/checkpoint.h"

namespace moba {
namespace {

// Tensors of other writers that carry nothing: buffers of old Hugging Face versions, and the head of a tied model.
bool is_redundant(const std::string& name, const TransformerConfig& config) {
  return name.ends_with(".rotary_emb.inv_freq") || (name == "lm_head.weight" && config.tie_word_embeddings);
}

bool has_parameter(std::vector<Parameter>& parameters, const std::string& name) {
  for (const Parameter& p : parameters)
    if (p.name == name) return true;
  return false;
}

// One line per tensor that does not fit, empty if all do.
std::string mismatches(const WeightFiles& files, Transformer& model) {
  std::string lines;
  for (const Parameter& p : model.parameters()) {
    const auto found = files.entries().find(p.name);
    if (found == files.entries().end())
      lines += fmt::format("\n  {}: missing, the model has {}", p.name, to_string(p.master.shape()));
    else if (found->second.shape != p.master.shape())
      lines += fmt::format("\n  {}: {} in the file, {} in the model", p.name, to_string(found->second.shape), to_string(p.master.shape()));
  }
  for (const auto& [name, entry] : files.entries())
    if (!is_redundant(name, model.config()) && !has_parameter(model.parameters(), name))
      lines += fmt::format("\n  {}: {} in the file, unknown to the model", name, to_string(entry.shape));
  return lines;
}

void check_fit(const WeightFiles& files, const std::string& dir, Transformer& model) {
  const std::string problems = mismatches(files, model);
  if (!problems.empty()) throw Error(fmt::format("the weights in {} do not fit the model:{}", dir, problems));
}

}  // namespace

void check_weights_fit(const std::string& dir, Transformer& model) { check_fit(WeightFiles(dir), dir, model); }

void load_checked_weights(const std::string& dir, Transformer& model) {
  if (std::filesystem::exists(dir + "/MANIFEST.json")) verify_checkpoint(dir);
  load_weights(dir, model);
}

void load_weights(const std::string& dir, Transformer& model) {
  const WeightFiles files(dir);
  check_fit(files, dir, model);
  for (const Parameter& p : model.parameters()) files.read(p.name, p.master);
  model.refresh_compute_copies();
}

std::string weights_hash(const std::string& dir) {
  const WeightFiles files(dir);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const auto add = [&](std::string_view bytes) { XXH3_64bits_update(state.get(), bytes.data(), bytes.size()); };
  for (const auto& [name, entry] : files.entries()) {
    add(fmt::format("{} {} {}\n", name, dtype_name(entry.dtype), to_string(entry.shape)));
    add(files.bytes(name));
  }
  return fmt::format("{:016x}", XXH3_64bits_digest(state.get()));
}

}  // namespace moba
