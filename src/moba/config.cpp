#include "src/moba/config.h"

#include <cmath>

#include "kernels/common/check.h"

namespace moba {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Select;

// Finds the enum value whose printed name is `name`; all of them are listed in the error.
template <class Enum, size_t N, class NameOf>
Enum from_name(const char* what, const std::string& name, const Enum (&values)[N], NameOf name_of) {
  std::string allowed;
  for (const Enum value : values) {
    if (name == name_of(value)) return value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(name_of(value));
  }
  throw Error(fmt::format("{} must be one of {}, got '{}'", what, allowed, name));
}

}  // namespace

void validate(const AttentionConfig& config, const std::string& where) {
  MOBA_CHECK(config.softmax_scale == 0 || (std::isfinite(config.softmax_scale) && config.softmax_scale > 0),
             "{}: softmax scale must be finite and > 0, got {}", where, config.softmax_scale);
  if (config.type == AttentionType::window)
    MOBA_CHECK(config.window >= 1, "{}.window must be >= 1 for type window, got {}", where, config.window);
  if (config.type != AttentionType::moba) return;
  MOBA_CHECK(config.moba.chunk_size >= 1, "{}.moba_chunk_size must be >= 1, got {}", where, config.moba.chunk_size);
  MOBA_CHECK(config.moba.topk >= 1, "{}.moba_topk must be >= 1 (it counts the own block), got {}", where, config.moba.topk);
}

const char* attention_type_name(AttentionType type) {
  switch (type) {
    case AttentionType::full: return "full";
    case AttentionType::moba: return "moba";
    case AttentionType::window: return "window";
  }
  return "?";
}

AttentionType attention_type_from_name(const std::string& name) {
  constexpr AttentionType kTypes[] = {AttentionType::full, AttentionType::moba, AttentionType::window};
  return from_name("attention type", name, kTypes, attention_type_name);
}

Gate gate_from_name(const std::string& name) {
  constexpr Gate kGates[] = {Gate::mean, Gate::minmax, Gate::window, Gate::sink, Gate::random, Gate::oracle};
  return from_name("gate", name, kGates, kernels::gate_name);
}

Select select_from_name(const std::string& name) {
  constexpr Select kSelects[] = {Select::per_head, Select::per_group};
  return from_name("select", name, kSelects, kernels::select_name);
}

std::string describe(const AttentionConfig& config) {
  if (config.type == AttentionType::full) return "full";
  if (config.type == AttentionType::window) return fmt::format("window {}", config.window);
  std::string text = fmt::format("moba{} S {} K {}", config.naive ? "_naive" : "", config.moba.chunk_size, config.moba.topk);
  if (config.moba.gate != Gate::mean) text += fmt::format(" gate {}", kernels::gate_name(config.moba.gate));
  if (config.moba.select != Select::per_head) text += fmt::format(" select {}", kernels::select_name(config.moba.select));
  return text;
}

}  // namespace moba
