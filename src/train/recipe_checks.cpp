#include "src/train/recipe_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "src/train/schema.h"

namespace moba {
namespace {

using kernels::AttentionType;

class Checker {
 public:
  Checker(const Recipe& recipe, const YamlNode& written, const RecipeOptions& options, std::vector<std::string>& errors)
      : r_(recipe), written_(written), options_(options), errors_(errors) {}

  void run() {
    model();
    length();
    stages();
    schedule();
    layers();
    command_line();
    sizes();
    batch();
    data();
    parallel();
  }

 private:
  // Where the key was written, else where its section was.
  std::string where(const std::string& key) const {
    for (std::string path = key; !path.empty(); path = std::string(parent_name(path)))
      if (const YamlNode* node = find_path(written_, path)) return node->where;
    return written_.where;
  }
  template <class... Args>
  void complain(const std::string& key, fmt::format_string<Args...> format, Args&&... args) {
    errors_.push_back(fmt::format("{}: {}: {}", where(key), key, fmt::format(format, std::forward<Args>(args)...)));
  }
  bool given(const std::string& key) const {
    const YamlNode* node = find_path(written_, key);
    return node && (node->kind != YamlNode::Kind::null || node->rejected);
  }

  // As given, and of the right type.
  bool present(const std::string& key) const {
    const YamlNode* node = find_path(written_, key);
    return node && node->kind != YamlNode::Kind::null;
  }

  void model() {
    const TransformerConfig& m = r_.model;
    if (m.hidden_size == 0 || m.num_attention_heads == 0) return;  // already reported
    const bool divides = given("model.head_dim") || m.hidden_size % m.num_attention_heads == 0;
    if (!divides)
      complain("model.hidden_size", "{} is not a multiple of num_attention_heads {}; change one of them or state model.head_dim",
               m.hidden_size, m.num_attention_heads);
    if (m.num_key_value_heads > 0 && m.num_attention_heads % m.num_key_value_heads != 0)
      complain("model.num_key_value_heads", "must divide num_attention_heads {}, got {}", m.num_attention_heads, m.num_key_value_heads);
    if (m.head_dim > 256) complain("model.head_dim", "hidden_size / num_attention_heads = {}; at most 256 is supported", m.head_dim);
    if (divides && m.head_dim % 2 != 0) complain("model.head_dim", "must be even (positions rotate pairs), got {}", m.head_dim);
    if (m.key_conv != 0 && m.key_conv != 3 && m.key_conv != 5)
      complain("model.attention.key_conv", "must be 0, 3 or 5, got {}", m.key_conv);
    rope("model.rope_scaling", m.rope_scaling);
  }

  void rope(const std::string& key, const kernels::RopeScaling& scaling) {
    if (scaling.type == kernels::RopeType::llama3 && scaling.high_freq_factor <= scaling.low_freq_factor)
      complain(key, "high_freq_factor {} must be above low_freq_factor {}", scaling.high_freq_factor, scaling.low_freq_factor);
    if (scaling.type == kernels::RopeType::none && scaling.factor != 1)
      complain(key, "factor {} has no effect with rope_type none; state rope_type: linear or llama3", scaling.factor);
  }

  void length() {
    const bool tokens = given("train.max_tokens"), steps = given("train.max_steps");
    if (tokens && steps) complain("train.max_steps", "max_tokens is given too (at {}); a run has one length", where("train.max_tokens"));
    if (!tokens && !steps && given("train")) complain("train", "neither max_tokens nor max_steps is given; a run needs a length");
    if (!given("train")) return;
    int64_t longest = 0;
    for (const StageRecipe& stage : r_.stages) longest = std::max(longest, stage.sequence_length);
    if (present("train.stages") && present("train.sequence_length") &&
        find_path(written_, "train.sequence_length")->text != std::to_string(longest))
      complain("train.sequence_length", "train.stages (at {}) gives the sequence lengths; leave this out or state the longest, {}",
               where("train.stages"), longest);
    if (!given("train.stages") && !given("train.sequence_length"))
      complain("train.sequence_length", "missing, and it has no default (tokens of a sequence)");
  }

  // `until` values as in the recipe: shares of the run or tokens, ascending, the last 1.
  void untils(const std::string& key, const std::vector<double>& until) {
    for (size_t i = 0; i < until.size(); ++i) {
      if (until[i] == 0) continue;  // missing or wrong, already reported
      if (until[i] > 1 && until[i] != std::floor(until[i]))
        complain(key, "until {} is neither a share of the run (up to 1) nor a whole number of tokens", until[i]);
      if (i + 1 == until.size() && until[i] != 1) complain(key, "the last until must be 1 (the end of the run), got {}", until[i]);
      if (i + 1 < until.size() && until[i] == 1) complain(key, "until 1 is the end of the run, so only the last entry can have it");
      const bool same_unit = i > 0 && (until[i] > 1) == (until[i - 1] > 1);
      if (same_unit && until[i] <= until[i - 1])
        complain(key, "until must rise from entry to entry, got {} after {}", until[i], until[i - 1]);
    }
  }

  void stages() {
    if (!present("train.stages")) return;
    if (find_path(written_, "train.stages")->items.empty()) return complain("train.stages", "must have at least one entry");
    std::vector<double> until;
    for (const StageRecipe& stage : r_.stages) {
      until.push_back(stage.until);
      rope("train.stages", stage.rope_scaling);
    }
    untils("train.stages", until);
    for (const YamlNode& stage : find_path(written_, "train.stages")->items)
      if (stage.get("attention") && given("model.attention.schedule"))
        complain("model.attention.schedule", "a stage has attention too (at {}); say it in one place", stage.get("attention")->where);
  }

  void schedule() {
    if (!present("model.attention.schedule")) return;
    if (r_.attention.schedule.empty()) return complain("model.attention.schedule", "must have at least one entry");
    std::vector<double> until;
    for (const ScheduleStage& stage : r_.attention.schedule) until.push_back(stage.until);
    untils("model.attention.schedule", until);
  }

  void layers() {
    const int64_t count = r_.model.num_hidden_layers;
    if (count == 0) return;
    const auto in_model = [&](const std::string& key, const std::vector<int64_t>& numbers) {
      for (int64_t n : numbers)
        if (n >= count) complain(key, "there is no layer {}; the model has layers 0 to {}", n, count - 1);
    };
    in_model("model.attention.full_attention_layers", r_.attention.full_attention_layers);
    std::vector<int64_t> seen;
    for (const LayerOverride& entry : r_.attention.layers) {
      in_model("model.attention.layers", entry.layers);
      for (int64_t n : entry.layers) {
        if (std::find(seen.begin(), seen.end(), n) != seen.end()) complain("model.attention.layers", "layer {} is named twice", n);
        seen.push_back(n);
      }
    }
  }

  void command_line() {
    const auto attempt = [&](auto&& f) {
      try {
        f();
      } catch (const Error& e) {
        errors_.push_back(fmt::format("command line: {}", e.what()));
      }
    };
    const std::string attn = options_.attention.value_or("moba");
    attempt([&] { parse_attention_option(attn, r_.attention.base); });
    if (!options_.hybrid_layers) return;
    if (attn == "full" || attn == "window")
      errors_.push_back(fmt::format("command line: --hybrid-layers {} with --attn {}: the other layers must be moba or moba_naive",
                                    *options_.hybrid_layers, attn));
    if (!r_.attention.full_attention_layers.empty())
      errors_.push_back(fmt::format("command line: --hybrid-layers {}: {} states model.attention.full_attention_layers; use one of the two",
                                    *options_.hybrid_layers, where("model.attention.full_attention_layers")));
    if (r_.model.num_hidden_layers > 0) attempt([&] { parse_hybrid_layers(*options_.hybrid_layers, r_.model.num_hidden_layers); });
  }

  // Sizes that an attention type needs, wherever the type comes from.
  void sizes() {
    const AttentionPlan& plan = r_.attention;
    bool moba = false, moba_sized = true, window = false, window_sized = true;
    const auto use = [&](AttentionType type, bool chunk, bool topk, bool has_window) {
      if (type == AttentionType::moba) moba = true, moba_sized &= chunk && topk;
      if (type == AttentionType::window) window = true, window_sized &= has_window;
    };
    const bool chunk = plan.base.moba.chunk_size > 0, topk = plan.base.moba.topk > 0, base_window = plan.base.window > 0;
    std::optional<AttentionType> forced;
    if (options_.hybrid_layers || options_.attention == "moba" || options_.attention == "moba_naive") forced = AttentionType::moba;
    if (options_.attention == "full") forced = AttentionType::full;
    if (options_.attention == "window") forced = AttentionType::window;
    use(forced.value_or(plan.base.type), chunk, topk, base_window);
    for (const auto& s : plan.schedule)
      use(forced.value_or(s.type.value_or(plan.base.type)), chunk || s.chunk_size, topk || s.topk, base_window || s.window);
    for (const auto& l : plan.layers)
      use(forced.value_or(l.type.value_or(plan.base.type)), chunk || l.chunk_size, topk || l.topk, base_window || l.window);
    if (moba && !moba_sized && !chunk && !given("model.attention.moba_chunk_size"))

      complain("model.attention.moba_chunk_size", "missing, and a layer uses moba (block size, for example 512)");
    if (moba && !moba_sized && !topk && !given("model.attention.moba_topk"))

      complain("model.attention.moba_topk", "missing, and a layer uses moba (blocks a query reads, for example 3)");
    if (window && !window_sized && !given("model.attention.window"))
      complain("model.attention.window", "missing, and a layer uses window (tokens a query reads)");
  }

  void batch() {
    const int64_t batch = r_.global_batch_tokens;
    if (batch == 0) return;
    for (const StageRecipe& stage : r_.stages) {
      if (stage.sequence_length == 0) continue;
      const int64_t unit = stage.sequence_length * std::max<int64_t>(r_.micro_batch_size, 1) * std::max<int64_t>(r_.data_ranks, 1);
      if (batch % unit == 0) continue;
      const int64_t below = batch / unit * unit, above = below + unit;
      std::string of = fmt::format("sequence_length {}", stage.sequence_length);
      if (r_.micro_batch_size > 0) of += fmt::format(" x micro_batch_size {}", r_.micro_batch_size);
      if (r_.data_ranks > 1) of += fmt::format(" x parallel.data {}", r_.data_ranks);
      const std::string nearest = below > 0 ? fmt::format("nearest: {} or {}", below, above) : fmt::format("smallest: {}", above);
      complain("train.global_batch_tokens", "{} is not a multiple of {} = {}; {}", batch, of, unit, nearest);
    }
  }

  void data() {
    if (r_.eval_interval > 0 && r_.validation.empty() && given("data"))
      complain("data.validation", "missing, and eval.interval is {} (0 = no evaluation)", r_.eval_interval);
    if (r_.packing == Packing::best_fit && !r_.document_mask)
      complain("data.document_mask", "best_fit packing puts whole documents side by side, so it needs document_mask: true");
    for (const StageRecipe& stage : r_.stages)
      if (r_.eval_trailing > stage.sequence_length && stage.sequence_length > 0)
        complain("eval.trailing", "{} is longer than a sequence of {}", r_.eval_trailing, stage.sequence_length);
    for (const StageRecipe& stage : r_.stages)
      if (r_.eval_bins > stage.sequence_length && stage.sequence_length > 0 && given("eval.bins"))
        complain("eval.bins", "{} bins for a sequence of {} tokens", r_.eval_bins, stage.sequence_length);
    if (r_.train_on_prompt && !r_.sft) complain("sft.train_on_prompt", "has no meaning with task: pretrain");
    if (r_.name.find('/') != std::string::npos || r_.name == "." || r_.name == "..")
      complain("run.name", "is one folder's name, got '{}'; the folder around it is run.output_dir", r_.name);
  }

  void parallel() {
    for (const char* key : {"parallel.tensor", "parallel.context"}) {
      const YamlNode* node = find_path(r_.tree, key);
      if (node && node->kind == YamlNode::Kind::scalar && node->text != "1")
        complain(key, "only data parallelism is built, so the only value is 1, got {}", node->text);
    }
    if (r_.zero_stage > 1)
      complain("parallel.zero_stage", "stages 2 and 3 (sharded gradients and weights) are not built; 0 or 1, got {}", r_.zero_stage);
    if (r_.data_ranks == 0) return;  // already reported
    const auto power_of_two = [&](const char* key, int64_t n) {
      const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)));
      if (below != n)
        complain(key, "must be a power of two (sums are made in a binary tree), got {}; nearest: {} or {}", n, below, 2 * below);
      return below == n;
    };
    const bool ranks_fit = power_of_two("parallel.data", r_.data_ranks);
    if (r_.lanes > 0 && power_of_two("parallel.lanes", r_.lanes) && ranks_fit && r_.data_ranks > r_.lanes)
      complain("parallel.data", "{} ranks, but {} lanes (at {}): a rank owns whole lanes, so there can be at most as many ranks",
               r_.data_ranks, r_.lanes, where("parallel.lanes"));
    for (const StageRecipe& stage : r_.stages) {
      const int64_t unit = stage.sequence_length * std::max<int64_t>(r_.micro_batch_size, 1);
      if (unit == 0 || r_.global_batch_tokens % unit != 0) continue;  // reported by batch()
      const int64_t micro_batches = r_.global_batch_tokens / unit;
      if (r_.lanes > micro_batches)
        complain("parallel.lanes", "{} lanes, but a step has only {} micro-batches of {} tokens; lower it, or leave it out", r_.lanes,
                 micro_batches, unit);
    }
  }

  const Recipe& r_;
  const YamlNode& written_;
  const RecipeOptions& options_;
  std::vector<std::string>& errors_;
};

}  // namespace

void check_recipe(const Recipe& recipe, const YamlNode& written, const RecipeOptions& options, std::vector<std::string>& errors) {
  Checker(recipe, written, options, errors).run();
}

}  // namespace moba
