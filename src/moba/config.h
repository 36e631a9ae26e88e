// What a layer's attention does. MoBA has no parameters of its own, so this can change per layer and per step.
#pragma once
#include <cstdint>
#include <string>

#include "kernels/moba_gate/moba_gate.h"

namespace moba {

struct MobaConfig {
  int64_t chunk_size = 512;  // S, recipe key moba_chunk_size
  int64_t topk = 3;          // K, counts the own block
  kernels::Gate gate = kernels::Gate::mean;
  kernels::Select select = kernels::Select::per_head;
  uint64_t seed = 0;  // gate random
  bool operator==(const MobaConfig&) const = default;
};

struct AttentionConfig {
  kernels::AttentionType type = kernels::AttentionType::full;
  bool naive = false;  // type moba by the plain reference kernel (--attn moba_naive)
  MobaConfig moba;
  int64_t window = 0;        // type window
  double softmax_scale = 0;  // 0 = D^-0.5
  bool operator==(const AttentionConfig&) const = default;
};

// Throws "<where>.moba_chunk_size must be ..." for what the type uses; `where` is the recipe section, e.g. "model.attention".
void validate(const AttentionConfig& config, const std::string& where);

const char* attention_type_name(kernels::AttentionType type);              // "full", "moba", "window"
kernels::AttentionType attention_type_from_name(const std::string& name);  // Error listing the names
kernels::Gate gate_from_name(const std::string& name);
kernels::Select select_from_name(const std::string& name);

// "moba S 512 K 3", "window 256", "full": for logs and reports.
std::string describe(const AttentionConfig& config);

}  // namespace moba
