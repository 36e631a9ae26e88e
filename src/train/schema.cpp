#include "src/train/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace moba {
namespace {

using K = KeyKind;
constexpr double kMillion = 1e6, kTokens = 1e15;
constexpr std::string_view kAttentionTypes = "full|moba|window";

// clang-format off
constexpr KeySpec kKeys[] = {
  {"task", K::choice, "pretrain", "What the data is: running text, or instructions with a loss mask (see sft)", 0, 0, "pretrain|sft"},

  {"run", K::section, "", "The run and its folder, output_dir/name"},
  {"run.name", K::text, "", "Name of the run; by default the recipe's file name without .yaml"},
  {"run.output_dir", K::text, "runs", "Folder in which the run's folder is made"},
  {"run.seed", K::integer, "1", "Seed of initialisation, data order and the random gate", 0, 9e15},

  {"model", K::section, kRequired, "The decoder, spelled as in Hugging Face's Llama config"},
  {"model.hidden_size", K::integer, kRequired, "Width of the residual stream, C", 1, kMillion},
  {"model.intermediate_size", K::integer, kRequired, "Width of the SwiGLU feed-forward", 1, kMillion},
  {"model.num_hidden_layers", K::integer, kRequired, "Number of blocks", 1, 10000},
  {"model.num_attention_heads", K::integer, kRequired, "Query heads, H", 1, 10000},
  {"model.num_key_value_heads", K::integer, "", "Key and value heads, Hk; must divide H. By default H", 1, 10000},
  {"model.head_dim", K::integer, "", "Size of a head, D; even where positions are rotated. By default hidden_size / num_attention_heads", 1, 256},
  {"model.vocab_size", K::integer, "", "Rows of the embedding, V; at least the data's vocabulary, which is the default", 2, 1e7},
  {"model.max_position_embeddings", K::integer, "", "Longest sequence the model is meant for; by default the longest it is trained on", 1, 1e9},
  {"model.rms_norm_eps", K::number, "1e-5", "Epsilon of every RMSNorm", 0, 1},
  {"model.rope_theta", K::number, "10000", "Base of the rotary position embedding", 1, 1e12},
  {"model.rope_scaling", K::section, "", "Scaling of the rotary position embedding, for longer contexts"},
  {"model.rope_scaling.rope_type", K::choice, "none", "Kind of scaling", 0, 0, "none|linear|llama3"},
  {"model.rope_scaling.factor", K::number, "1", "Stretch of the context (linear, llama3)", 1, kMillion},
  {"model.rope_scaling.low_freq_factor", K::number, "1", "llama3: wavelengths above original / this are stretched fully", 1e-6, kMillion},
  {"model.rope_scaling.high_freq_factor", K::number, "4", "llama3: wavelengths below original / this are left alone", 1e-6, kMillion},
  {"model.rope_scaling.original_max_position_embeddings", K::integer, "8192", "llama3: context of the model before stretching", 1, 1e9},
  {"model.rope_scaling.position_interpolation", K::number, "1", "Positions are divided by this first", 1, kMillion},
  {"model.tie_word_embeddings", K::boolean, "false", "Embedding and head share one matrix"},
  {"model.initializer_range", K::number, "0.02", "Standard deviation of the initial weights", 0, 10},
  {"model.qk_norm", K::boolean, "false", "RMSNorm over the head dimension of queries and keys, before RoPE"},
  {"model.init_from", K::text, "", "Start from the weights of this checkpoint, run or Hugging Face Llama folder; fresh optimizer, step 0. Heads, vocabulary, tying and tokenizer must be the same"},

  {"model.attention", K::section, "", "What the attention layers do; can differ per layer and change in the run"},
  {"model.attention.type", K::choice, "moba", "Attention of every layer not named below", 0, 0, kAttentionTypes},
  {"model.attention.moba_chunk_size", K::integer, "", "Block size, S; required where a layer uses moba", 1, 1e9},
  {"model.attention.moba_topk", K::integer, "", "Blocks a query reads, K, its own block included; required where a layer uses moba", 1, kMillion},
  {"model.attention.gate", K::choice, "mean", "How blocks are scored: mean is MoBA, the others are baselines (see docs/moba.md)", 0, 0, "mean|minmax|window|sink|random|oracle"},
  {"model.attention.select", K::choice, "per_head", "One selection per query head, or one per group of a key/value head", 0, 0, "per_head|per_group"},
  {"model.attention.key_conv", K::integer, "0", "Width of the causal key convolution: 0 (none), 3 or 5", 0, 5},
  {"model.attention.window", K::integer, "", "Tokens a query reads, its own included; required where a layer uses window", 1, 1e9},
  {"model.attention.full_attention_layers", K::integers, "[]", "Layers (from 0) that always use full attention", 0, 10000},
  {"model.attention.layers", K::sections, "", "Layers that differ: list of {layers, type, moba_chunk_size, moba_topk, window, rope}"},
  {"model.attention.layers[].layers", K::integers, kRequired, "Numbers of these layers, from 0", 0, 10000},
  {"model.attention.layers[].type", K::choice, "", "Attention of these layers", 0, 0, kAttentionTypes},
  {"model.attention.layers[].moba_chunk_size", K::integer, "", "Block size of these layers", 1, 1e9},
  {"model.attention.layers[].moba_topk", K::integer, "", "Blocks a query reads in these layers", 1, kMillion},
  {"model.attention.layers[].window", K::integer, "", "Window of these layers", 1, 1e9},
  {"model.attention.layers[].rope", K::boolean, "", "false: no position encoding in these layers"},
  {"model.attention.schedule", K::sections, "", "Attention that changes in the run: list of {until, type, moba_chunk_size, moba_topk, window}"},
  {"model.attention.schedule[].until", K::number, kRequired, "End of this part: up to 1 a share of the run, above 1 tokens; the last is 1", 0, kTokens},
  {"model.attention.schedule[].type", K::choice, "", "Attention in this part", 0, 0, kAttentionTypes},
  {"model.attention.schedule[].moba_chunk_size", K::integer, "", "Block size in this part", 1, 1e9},
  {"model.attention.schedule[].moba_topk", K::integer, "", "Blocks a query reads in this part", 1, kMillion},
  {"model.attention.schedule[].window", K::integer, "", "Window in this part", 1, 1e9},

  {"data", K::section, kRequired, "Token files made by moba-data prepare"},
  {"data.train", K::sections, kRequired, "Training files: list of {path, weight}"},
  {"data.train[].path", K::text, kRequired, "An HDF5 token file"},
  {"data.train[].weight", K::number, "1", "Share of samples from this file, relative to the others", 1e-9, 1e9},
  {"data.validation", K::texts, "", "Validation file, or a list of them; required where eval.interval is above 0"},
  {"data.packing", K::choice, "", "How documents fill a sequence: concat cuts anywhere, best_fit never splits. By default concat, for sft best_fit", 0, 0, "concat|best_fit"},
  {"data.document_mask", K::boolean, "", "Each document in a sequence attends to itself only, positions restart. By default false, for sft and best_fit true"},

  {"train", K::section, kRequired, "The training loop"},
  {"train.sequence_length", K::integer, "", "Tokens of a sequence; with train.stages the longest of theirs, which is the default", 1, 1e9},
  {"train.stages", K::sections, "", "Stages of different sequence length in one run: list of {sequence_length, until, rope_scaling, attention, data}"},
  {"train.stages[].sequence_length", K::integer, kRequired, "Tokens of a sequence in this stage", 1, 1e9},
  {"train.stages[].until", K::number, kRequired, "End of the stage: up to 1 a share of the run, above 1 tokens; the last is 1", 0, kTokens},
  {"train.stages[].rope_scaling", K::section, "", "Scaling of this stage; by default model.rope_scaling"},
  {"train.stages[].rope_scaling.rope_type", K::choice, "none", "Kind of scaling", 0, 0, "none|linear|llama3"},
  {"train.stages[].rope_scaling.factor", K::number, "1", "Stretch of the context (linear, llama3)", 1, kMillion},
  {"train.stages[].rope_scaling.low_freq_factor", K::number, "1", "llama3: see model.rope_scaling", 1e-6, kMillion},
  {"train.stages[].rope_scaling.high_freq_factor", K::number, "4", "llama3: see model.rope_scaling", 1e-6, kMillion},
  {"train.stages[].rope_scaling.original_max_position_embeddings", K::integer, "8192", "llama3: see model.rope_scaling", 1, 1e9},
  {"train.stages[].rope_scaling.position_interpolation", K::number, "1", "Positions are divided by this first", 1, kMillion},
  {"train.stages[].attention", K::section, "", "Attention in this stage, or its type alone; not together with model.attention.schedule", -kNoLimit, kNoLimit, "type"},
  {"train.stages[].attention.type", K::choice, "", "Attention of every layer not pinned", 0, 0, kAttentionTypes},
  {"train.stages[].attention.moba_chunk_size", K::integer, "", "Block size in this stage", 1, 1e9},
  {"train.stages[].attention.moba_topk", K::integer, "", "Blocks a query reads in this stage", 1, kMillion},
  {"train.stages[].attention.window", K::integer, "", "Window in this stage", 1, 1e9},
  {"train.stages[].data", K::sections, "", "Training files of this stage: list of {path, weight}; by default data.train"},
  {"train.stages[].data[].path", K::text, kRequired, "An HDF5 token file"},
  {"train.stages[].data[].weight", K::number, "1", "Share of samples from this file", 1e-9, 1e9},
  {"train.global_batch_tokens", K::integer, kRequired, "Tokens of one optimizer step; a multiple of sequence_length x micro_batch_size", 1, 1e12},
  {"train.micro_batch_size", K::integer_or_auto, "auto", "Sequences of one forward pass; auto is resolved once and kept", 1, kMillion},
  {"train.max_tokens", K::integer, "", "Length of the run in tokens; this or max_steps", 1, kTokens},
  {"train.max_steps", K::integer, "", "Length of the run in optimizer steps; this or max_tokens", 1, 1e12},
  {"train.precision", K::choice, "auto", "Compute type; auto is bf16 where the CPU multiplies bf16, else fp32", 0, 0, "auto|bf16|fp32"},
  {"train.grad_clip", K::number, "1", "Largest global norm of the gradient; 0 = no clipping", 0, 1e9},
  {"train.activation_checkpointing", K::choice, "none", "block: recompute each block in the backward pass, for less memory", 0, 0, "none|block"},
  {"train.nonfinite", K::choice, "stop", "A loss or gradient that is not finite never updates: stop at once (exit 4; the state before it is saved), or skip (the same after 5 in a row)", 0, 0, "stop|skip"},

  {"optimizer", K::section, "", "The optimizer; masters and moments in fp32"},
  {"optimizer.name", K::choice, "adamw", "muon: Muon for the matrices inside blocks, AdamW for the rest", 0, 0, "adamw|muon"},
  {"optimizer.lr", K::number, "6e-4", "Peak learning rate", 0, 100},
  {"optimizer.betas", K::number_pair, "[0.9, 0.95]", "Decay of AdamW's two moments", 0, 0.9999999},
  {"optimizer.eps", K::number, "1e-8", "AdamW's epsilon", 1e-30, 1},
  {"optimizer.weight_decay", K::number, "0.1", "Decoupled weight decay; none on norms, embeddings and key convolution", 0, 10},

  {"lr_scheduler", K::section, "", "Learning rate over the run"},
  {"lr_scheduler.name", K::choice, "cosine", "Shape after the warm-up", 0, 0, "cosine|wsd|linear|constant"},
  {"lr_scheduler.warmup_steps", K::integer, "0", "Steps of linear warm-up", 0, 1e12},
  {"lr_scheduler.min_lr_ratio", K::number, "0.1", "Learning rate at the end, as a share of the peak", 0, 1},
  {"lr_scheduler.decay_ratio", K::number, "0.2", "wsd: last share of the run, in which the rate falls", 0, 1},

  {"sft", K::section, "", "Instruction data (task: sft)"},
  {"sft.train_on_prompt", K::boolean, "false", "Count the tokens of prompts in the loss too"},
  {"sft.too_long", K::choice, "drop", "Examples longer than a sequence", 0, 0, "drop|truncate"},

  {"eval", K::section, "", "Evaluation in the run, on data.validation"},
  {"eval.interval", K::integer, "0", "Steps between evaluations, and at the end; 0 = none", 0, 1e12},
  {"eval.max_tokens", K::integer, "0", "Validation tokens of one evaluation; 0 = all", 0, kTokens},
  {"eval.trailing", K::integer, "0", "Trailing loss: over the last so many tokens of full windows of documents; with task: sft over the last so many counted targets of each example; 0 = none", 0, 1e9},
  {"eval.bins", K::integer, "16", "Parts of sequence_length in the loss by position: in full windows of documents; with task: sft in each packed example, whose first token has position 0; 0 = none", 0, 65536},

  {"checkpoint", K::section, "", "Checkpoints, in the run's folder"},
  {"checkpoint.interval", K::integer, "1000", "Steps between checkpoints, and at the end; 0 = none", 0, 1e12},
  {"checkpoint.keep_last", K::integer, "2", "Newest checkpoints to keep; 0 = all", 0, kMillion},

  {"logging", K::section, "", "What is printed and written"},
  {"logging.interval", K::integer, "10", "Steps between console lines (metrics.jsonl has every step)", 1, 1e12},
  {"logging.tensorboard", K::boolean, "true", "Write tb/ for TensorBoard"},

  {"parallel", K::section, "", "Several processes: mpirun -n P moba-train RECIPE parallel.data=P (docs/distributed.md)"},
  {"parallel.data", K::integer, "1", "Data-parallel ranks, a power of two; as many processes must be started", 1, kMillion},
  {"parallel.lanes", K::integer, "", "Lanes of the gradient sum over all ranks, a power of two, at most the micro-batches of a step: the same lanes give the same bits on any number of ranks. Absent: 8, or the most that fit. A rank with several lanes holds log2(lanes of a rank) + 1 gradients; 1 = plain accumulation, one rank", 1, kMillion},
  {"parallel.tensor", K::integer, "1", "Tensor-parallel ranks; only 1 is built", 1, kMillion},
  {"parallel.context", K::integer, "1", "Context-parallel ranks; only 1 is built", 1, kMillion},
  {"parallel.zero_stage", K::integer, "0", "1: optimizer state and fp32 masters are sharded over data ranks (ZeRO-1); 2 and 3 are not built", 0, 3},
  {"parallel.time_limit", K::number, "600", "Seconds that a rank waits for the others before the run ends with exit code 6", 1, kMillion},
};
// clang-format on

// Edits (insert, delete, replace, swap of neighbours) from a to b.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before, previous(b.size() + 1), row(b.size() + 1);
  std::iota(previous.begin(), previous.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({row[j - 1] + 1, previous[j] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = previous;
    previous = row;
  }
  return previous[b.size()];
}

}  // namespace

std::span<const KeySpec> recipe_keys() { return kKeys; }

const KeySpec* find_key(std::string_view name) {
  for (const KeySpec& key : kKeys)
    if (key.name == name) return &key;
  return nullptr;
}

std::string_view leaf_name(std::string_view name) { return name.substr(name.rfind('.') + 1); }

std::string_view parent_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
}

std::string type_text(const KeySpec& key) {
  switch (key.kind) {
    case K::section: return "section";
    case K::sections: return "list of sections";
    case K::text: return "text";
    case K::texts: return "text or list of texts";
    case K::integer: return "whole number";
    case K::integers: return "list of whole numbers";
    case K::integer_or_auto: return "whole number or auto";
    case K::number: return "number";
    case K::number_pair: return "list of two numbers";
    case K::boolean: return "true or false";
    case K::choice: break;
  }
  std::string out;
  for (char c : key.choices) out += c == '|' ? std::string(" | ") : std::string(1, c);
  return out;
}

std::string range_text(const KeySpec& key) {
  if (key.kind == K::choice || (key.low == -kNoLimit && key.high == kNoLimit)) return "";
  const auto text = [](double v) { return fmt::format("{:.15g}", v); };
  if (key.high >= 1e5) return "at least " + text(key.low);
  return fmt::format("between {} and {}", text(key.low), text(key.high));
}

std::string default_text(const KeySpec& key) {
  if (key.fallback == kRequired) return "required";
  if (key.fallback.empty()) return "none";
  return std::string(key.fallback);
}

std::string nearest_word(std::string_view written, const std::vector<std::string>& words) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, written.size() / 3) + 1;  // anything further is no help
  for (const std::string& word : words) {
    const size_t distance = edit_distance(written, word);
    if (distance < best_distance) {
      best_distance = distance;
      best = word;
    }
  }
  return best;
}

std::string nearest_key(std::string_view parent, std::string_view written) {
  std::vector<std::string> siblings;
  for (const KeySpec& key : kKeys)
    if (parent_name(key.name) == parent) siblings.emplace_back(leaf_name(key.name));
  if (std::string near = nearest_word(written, siblings); !near.empty()) return near;
  // A key of another section: exactly the name, or a name that ends in it ("topk").
  for (const KeySpec& key : kKeys)
    if (leaf_name(key.name) == written) return std::string(key.name);
  for (const KeySpec& key : kKeys)
    if (leaf_name(key.name).ends_with(fmt::format("_{}", written))) return std::string(key.name);
  return "";
}

}  // namespace moba
