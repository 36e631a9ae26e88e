#include "src/layers/memory.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/moba_attention/moba_attention.h"
#include "kernels/moba_gate/moba_gate.h"

namespace moba {
namespace {

// Sizes in elements (per token where it says so) and bytes that all parts are built from.
struct Sizes {
  Sizes(const TransformerConfig& c, const TrainingShape& s)
      : config(c),
        tokens(s.sequence_length * s.micro_batch_size),
        e(static_cast<int64_t>(dtype_size(s.dtype))),
        wide(s.dtype == DType::f64 ? 8 : 4),
        hidden(c.hidden_size),
        ffn(c.intermediate_size),
        q(c.num_attention_heads * c.resolved_head_dim()),
        kv(c.num_key_value_heads * c.resolved_head_dim()) {}

  const TransformerConfig& config;
  int64_t tokens, e, wide;
  int64_t hidden, ffn, q, kv;  // C, F, H*D, Hk*D: columns of a token's row

  int64_t rows(int64_t columns) const { return tokens * columns * e; }
  int64_t mlp_gradients() const { return 3 * hidden * ffn * wide; }
  int64_t attention_gradients() const { return 2 * hidden * (q + kv) * wide; }
  int64_t table() const { return config.vocab_size * hidden * wide; }
};

bool is_moba(const LayerAttention& layer) { return layer.attention.type == kernels::AttentionType::moba; }

// Offsets of micro_batch_size sequences of equal length.
std::vector<int32_t> equal_sequences(const TrainingShape& s) {
  std::vector<int32_t> cu;
  for (int64_t i = 0; i <= s.micro_batch_size; ++i) cu.push_back(static_cast<int32_t>(i * s.sequence_length));
  return cu;
}

int64_t selection_slots(const TrainingShape& s, const LayerAttention& layer) {
  const int64_t blocks = (s.sequence_length + layer.attention.moba.chunk_size - 1) / layer.attention.moba.chunk_size;
  return std::max<int64_t>(1, std::min(layer.attention.moba.topk, blocks));
}

int64_t selection_bytes(const Sizes& z, const TrainingShape& s, const LayerAttention& layer) {
  if (!is_moba(layer)) return 0;
  const bool per_group = layer.attention.moba.select == kernels::Select::per_group;
  return z.tokens * (per_group ? z.config.num_key_value_heads : z.config.num_attention_heads) * selection_slots(s, layer) * 4;
}

// Kept by the attention half of a block: input, its norm, q, k, v, output, log-sum-exp; what options add.
int64_t saved_attention(const Sizes& z, const TrainingShape& s, const LayerAttention& layer) {
  const TransformerConfig& c = z.config;
  int64_t bytes =
      z.rows(2 * z.hidden + 2 * z.q + 2 * z.kv) + z.tokens * (1 + c.num_attention_heads) * z.wide + selection_bytes(z, s, layer);
  if (c.key_conv > 0) bytes += z.rows(z.kv);
  if (c.qk_norm) {
    bytes += z.tokens * (c.num_attention_heads + c.num_key_value_heads) * z.wide;
    if (layer.rope) bytes += z.rows(z.q + z.kv);  // inputs of the norms; without RoPE the outputs are q and k themselves
  }
  return bytes;
}

// Kept by the MLP half: residual sum, its norm, gate, up and their product.
int64_t saved_mlp(const Sizes& z) { return z.rows(2 * z.hidden + 3 * z.ffn) + z.tokens * z.wide; }

int64_t attention_workspace(const Sizes& z, const TrainingShape& s, const LayerAttention& layer) {
  const std::vector<int32_t> cu = equal_sequences(s);
  kernels::AttentionArgs args;
  args.shape = {.batch = s.micro_batch_size,
                .cu_seqlens_q = cu.data(),
                .cu_seqlens_k = cu.data(),
                .tokens_q = z.tokens,
                .tokens_k = z.tokens,
                .heads = z.config.num_attention_heads,
                .kv_heads = z.config.num_key_value_heads,
                .head_dim = z.config.resolved_head_dim()};
  args.dtype = s.dtype;
  args.type = layer.attention.type;
  args.softmax_scale = 1;
  args.window = std::max<int64_t>(layer.attention.window, 1);
  args.chunk_size = layer.attention.moba.chunk_size;
  args.slots = is_moba(layer) ? selection_slots(s, layer) : 0;
  args.selected_per_group = layer.attention.moba.select == kernels::Select::per_group;
  return kernels::attention_workspace_bytes(args, true);
}

// By layer. Equal layers, which most are, are planned once: predictions ask for hundreds of points of a run.
std::vector<int64_t> attention_workspaces(const Sizes& z, const TrainingShape& s) {
  std::vector<int64_t> bytes;
  for (const LayerAttention& layer : s.layers) {
    const size_t same = static_cast<size_t>(std::find(s.layers.begin(), s.layers.end(), layer) - s.layers.begin());
    bytes.push_back(same < bytes.size() ? bytes[same] : attention_workspace(z, s, layer));
  }
  return bytes;
}

struct Candidate {
  MemoryEstimate estimate;
  void offer(const MemoryEstimate& other) {
    if (other.total() > estimate.total()) estimate = other;
  }
};

// Everything that is there in every moment of a step.
MemoryEstimate standing(const Sizes& z, const TrainingShape& s, const std::vector<int64_t>& workspaces) {
  const TransformerConfig& c = z.config;
  const int64_t parameters = parameter_count(c), block_matrices = matrix_parameter_count(c) - c.vocab_size * c.hidden_size;
  const int64_t owned = s.owned_parameters < 0 ? parameters : s.owned_parameters;
  const int64_t moments = (s.muon ? 2 * parameters - block_matrices : 2 * parameters) * z.wide;
  MemoryEstimate m;
  m.weights = s.dtype == DType::bf16 ? owned * z.wide + parameters * z.e : parameters * z.wide;
  m.optimizer = moments * owned / parameters;
  for (const int64_t bytes : workspaces)  // small ones stay from call to call
    if (bytes <= kernels::kAttentionWorkspaceKept) m.attention_workspace = std::max(m.attention_workspace, bytes);
  return m;
}

// Sets of gradients of this rank: one for each level of the tree of its lanes, and the one in the making where that is kept over
// several micro-batches (in the last pass of a step the others go as it grows); between ranks two buckets are on their way, or a bucket
// and the largest parameter.
int64_t held_gradients(const Sizes& z, const TrainingShape& s) {
  constexpr int64_t kBucketBytes = int64_t{32} << 20;  // as GradientSum cuts
  const int64_t one = parameter_count(z.config) * z.wide;
  const int64_t levels = static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(s.lanes, 1)))) - 1;
  const int64_t sets = std::max<int64_t>(1, levels + (s.micro_batches > s.lanes ? 1 : 0));
  const int64_t largest = z.config.vocab_size * z.config.hidden_size * z.wide;
  const int64_t on_their_way = kBucketBytes + std::max(kBucketBytes, largest);
  return one * sets + (s.ranks > 1 ? std::min(one, on_their_way) : 0);
}

// Activations of blocks 0 .. layer: whole, or their inputs and selections when blocks are recomputed.
int64_t saved_up_to(const Sizes& z, const TrainingShape& s, int64_t layer) {
  int64_t bytes = 0;
  for (int64_t i = 0; i <= layer; ++i) {
    const LayerAttention& l = s.layers[static_cast<size_t>(i)];
    bytes += s.checkpoint_blocks ? z.rows(z.hidden) + selection_bytes(z, s, l) : saved_attention(z, s, l) + saved_mlp(z);
  }
  return bytes;
}

// The fused head: hidden rows and their norm, gradients of both operands, one chunk of logits (and of their gradients in bf16).
MemoryEstimate at_loss(const Sizes& z, const TrainingShape& s, MemoryEstimate m) {
  constexpr int64_t kChunkLogits = int64_t{16} << 20;  // as ops::linear_cross_entropy cuts
  const int64_t vocab = z.config.vocab_size;
  const int64_t chunk = std::min(z.tokens, std::max<int64_t>(kChunkLogits / vocab / 32 * 32, 32));
  m.moment = "loss";
  m.gradients = s.micro_batches > 1 ? held_gradients(z, s) : 0;
  m.activations = saved_up_to(z, s, z.config.num_hidden_layers - 1) + z.rows(z.hidden);  // and the last block's output
  m.head = 2 * z.rows(z.hidden) + z.table() + chunk * vocab * (z.wide + (s.dtype == DType::bf16 ? z.e : 0)) + z.tokens * 8;
  return m;
}

// Backward of one block: its saved tensors, those of the blocks before it, and gradients in flight.
void offer_backward(const Sizes& z, const TrainingShape& s, MemoryEstimate m, int64_t layer, int64_t workspace, Candidate& peak) {
  const LayerAttention& l = s.layers[static_cast<size_t>(layer)];
  const int64_t later = z.config.num_hidden_layers - 1 - layer;
  m.moment = "backward";
  const bool all_held = s.micro_batches > 1 || s.ranks > 1;
  const int64_t all_gradients = held_gradients(z, s);
  const int64_t done = z.table() + later * (z.mlp_gradients() + z.attention_gradients());
  const int64_t saved_before = saved_up_to(z, s, layer) - (s.checkpoint_blocks ? 0 : saved_attention(z, s, l) + saved_mlp(z));

  // MLP half: gradient of the product beside gate, up and product; residual gradient twice.
  MemoryEstimate mlp = m;
  mlp.gradients = all_held ? all_gradients : done + z.hidden * z.ffn * z.wide;
  mlp.activations = saved_before + saved_attention(z, s, l) + saved_mlp(z) + z.rows(z.ffn + 2 * z.hidden);
  peak.offer(mlp);

  // Attention half: gradients of q, k, v and of the output beside what attention kept.
  MemoryEstimate attention = m;
  attention.gradients = all_held ? all_gradients : done + z.mlp_gradients() + z.hidden * z.q * z.wide;
  attention.activations = saved_before + saved_attention(z, s, l) + z.rows(z.hidden + 2 * z.q + 2 * z.kv);
  attention.attention_workspace = std::max(m.attention_workspace, workspace);
  peak.offer(attention);
}

MemoryEstimate at_update(const Sizes& z, const TrainingShape& s, MemoryEstimate m) {
  m.moment = "update";
  m.gradients = parameter_count(z.config) * z.wide;
  if (!s.muon) return m;
  // Newton-Schulz holds the update, its successor and two Gram matrices of the largest weight.
  const int64_t large = std::max(z.hidden * z.ffn, z.hidden * z.q), small = std::min(z.hidden, std::max(z.ffn, z.q));
  m.optimizer += (2 * large + 2 * small * small) * z.wide;
  return m;
}

}  // namespace

int64_t saved_block_bytes(const TransformerConfig& config, const TrainingShape& shape, const LayerAttention& layer) {
  const Sizes z(config, shape);
  return saved_attention(z, shape, layer) + saved_mlp(z);
}

MemoryEstimate training_memory(const TransformerConfig& config, const TrainingShape& shape) {
  validate(config);
  MOBA_CHECK(static_cast<int64_t>(shape.layers.size()) == config.num_hidden_layers,
             "memory estimate: {} layer settings for a model of {} layers", shape.layers.size(), config.num_hidden_layers);
  const Sizes z(config, shape);
  const std::vector<int64_t> workspaces = attention_workspaces(z, shape);
  const MemoryEstimate always = standing(z, shape, workspaces);
  Candidate peak{at_loss(z, shape, always)};
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    offer_backward(z, shape, always, layer, workspaces[static_cast<size_t>(layer)], peak);
  peak.offer(at_update(z, shape, always));
  // The allocator may keep 1/8 of the peak and 32 MiB of blocks that fit no later request; measured on models of 4M parameters
  // at T 8192 it keeps about 1/16, and the 32 MiB too where blocks are recomputed (many sizes come and go).
  peak.estimate.allocator_slack = peak.estimate.tensors() / 16 + (shape.checkpoint_blocks ? int64_t{32} << 20 : 0);
  return peak.estimate;
}

}  // namespace moba
