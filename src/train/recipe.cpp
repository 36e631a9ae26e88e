#include "src/train/recipe.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "src/train/recipe_checks.h"
#include "src/train/resume.h"
#include "src/train/schema.h"
#include "src/train/values.h"

namespace moba {
namespace {

using kernels::AttentionType;

// Typed access to a section of the checked tree. An absent value gives what stands after the path.
class Section {
 public:
  explicit Section(const YamlNode* node) : node_(node) {}

  const YamlNode* at(std::string_view path) const {
    const YamlNode* value = node_ ? find_path(*node_, path) : nullptr;
    return value && value->kind != YamlNode::Kind::null ? value : nullptr;
  }
  Section section(std::string_view path) const { return Section(at(path)); }
  std::vector<Section> sections(std::string_view path) const {
    std::vector<Section> out;
    if (const YamlNode* list = at(path))
      for (const YamlNode& item : list->items) out.emplace_back(&item);
    return out;
  }
  explicit operator bool() const { return node_ != nullptr; }

  std::optional<int64_t> maybe_integer(std::string_view path) const { return at(path) ? to_integer(*at(path)) : std::nullopt; }
  int64_t integer(std::string_view path, int64_t absent = 0) const { return maybe_integer(path).value_or(absent); }
  double number(std::string_view path, double absent = 0) const { return at(path) ? to_number(*at(path)).value_or(absent) : absent; }
  std::optional<bool> maybe_boolean(std::string_view path) const { return at(path) ? to_boolean(*at(path)) : std::nullopt; }
  bool boolean(std::string_view path) const { return maybe_boolean(path).value_or(false); }
  std::string text(std::string_view path) const { return at(path) ? at(path)->text : std::string(); }
  std::vector<std::string> texts(std::string_view path) const {
    const YamlNode* node = at(path);
    if (!node) return {};
    if (node->kind == YamlNode::Kind::scalar) return {node->text};
    std::vector<std::string> out;
    for (const YamlNode& item : node->items) out.push_back(item.text);
    return out;
  }
  std::vector<int64_t> integers(std::string_view path) const {
    std::vector<int64_t> out;
    if (const YamlNode* list = at(path))
      for (const YamlNode& item : list->items) out.push_back(to_integer(item).value_or(0));
    return out;
  }

 private:
  const YamlNode* node_;
};

// Names were checked against the table; an absent one gives nothing.
std::optional<AttentionType> attention_type(const std::string& name) {
  if (name.empty()) return {};
  return attention_type_from_name(name);
}

kernels::RopeScaling read_rope_scaling(const Section& s) {
  kernels::RopeScaling out;
  if (!s) return out;
  const std::string type = s.text("rope_type");
  out.type = type == "linear" ? kernels::RopeType::linear : type == "llama3" ? kernels::RopeType::llama3 : kernels::RopeType::none;
  out.factor = s.number("factor", out.factor);
  out.low_freq_factor = s.number("low_freq_factor", out.low_freq_factor);
  out.high_freq_factor = s.number("high_freq_factor", out.high_freq_factor);
  out.original_max_position_embeddings = s.integer("original_max_position_embeddings", out.original_max_position_embeddings);
  out.position_interpolation = s.number("position_interpolation", 1);
  return out;
}

std::vector<SamplerConfig::Source> read_sources(const Section& s, std::string_view path) {
  std::vector<SamplerConfig::Source> out;
  for (const Section& item : s.sections(path)) out.push_back({item.text("path"), item.number("weight", 1)});
  return out;
}

ScheduleStage read_schedule_stage(const Section& attention, double until) {
  ScheduleStage out;
  out.until = until;
  out.type = attention_type(attention.text("type"));
  out.chunk_size = attention.maybe_integer("moba_chunk_size");
  out.topk = attention.maybe_integer("moba_topk");
  out.window = attention.maybe_integer("window");
  return out;
}

void read_model(const Section& s, Recipe& r) {
  TransformerConfig& m = r.model;
  m.hidden_size = s.integer("hidden_size");
  m.intermediate_size = s.integer("intermediate_size");
  m.num_hidden_layers = s.integer("num_hidden_layers");
  m.num_attention_heads = s.integer("num_attention_heads");
  m.num_key_value_heads = s.integer("num_key_value_heads", m.num_attention_heads);
  m.head_dim = s.integer("head_dim", m.num_attention_heads > 0 ? m.hidden_size / m.num_attention_heads : 0);
  m.vocab_size = s.integer("vocab_size");
  m.max_position_embeddings = s.integer("max_position_embeddings");
  m.rms_norm_eps = s.number("rms_norm_eps");
  m.rope_theta = s.number("rope_theta");
  m.rope_scaling = read_rope_scaling(s.section("rope_scaling"));
  m.tie_word_embeddings = s.boolean("tie_word_embeddings");
  m.initializer_range = s.number("initializer_range");
  m.qk_norm = s.boolean("qk_norm");
  m.key_conv = s.integer("attention.key_conv");
  r.init_from = s.text("init_from");
}

void read_attention(const Section& s, Recipe& r) {
  AttentionConfig& base = r.attention.base;
  base.type = attention_type(s.text("type")).value_or(AttentionType::moba);
  base.moba.chunk_size = s.integer("moba_chunk_size");
  base.moba.topk = s.integer("moba_topk");
  if (!s) return;  // no section `model`: already reported
  base.moba.gate = gate_from_name(s.text("gate"));
  base.moba.select = select_from_name(s.text("select"));
  base.moba.seed = r.seed;
  base.window = s.integer("window");
  r.attention.full_attention_layers = s.integers("full_attention_layers");
  for (const Section& item : s.sections("layers")) {
    LayerOverride layer;
    layer.layers = item.integers("layers");
    layer.type = attention_type(item.text("type"));
    layer.chunk_size = item.maybe_integer("moba_chunk_size");
    layer.topk = item.maybe_integer("moba_topk");
    layer.window = item.maybe_integer("window");
    layer.rope = item.maybe_boolean("rope");
    r.attention.layers.push_back(layer);
  }
  for (const Section& item : s.sections("schedule")) r.attention.schedule.push_back(read_schedule_stage(item, item.number("until")));
}

void read_stages(const Section& root, Recipe& r) {
  const std::vector<SamplerConfig::Source> sources = read_sources(root, "data.train");
  bool stage_attention = false;
  std::vector<ScheduleStage> schedule;
  for (const Section& item : root.sections("train.stages")) {
    StageRecipe stage;
    stage.sequence_length = item.integer("sequence_length");
    stage.until = item.number("until");
    stage.rope_scaling = item.at("rope_scaling") ? read_rope_scaling(item.section("rope_scaling")) : r.model.rope_scaling;
    stage.sources = item.at("data") ? read_sources(item, "data") : sources;
    stage_attention |= item.at("attention") != nullptr;
    schedule.push_back(read_schedule_stage(item.section("attention"), stage.until));
    r.stages.push_back(stage);
  }
  if (stage_attention && r.attention.schedule.empty()) r.attention.schedule = schedule;
  if (r.stages.empty()) r.stages.push_back({root.integer("train.sequence_length"), 1, r.model.rope_scaling, sources});
  if (r.model.max_position_embeddings == 0)
    for (const StageRecipe& stage : r.stages)
      r.model.max_position_embeddings = std::max(r.model.max_position_embeddings, stage.sequence_length);
}

void read_train(const Section& s, Recipe& r) {
  r.global_batch_tokens = s.integer("global_batch_tokens");
  r.micro_batch_size = s.integer("micro_batch_size");
  r.max_tokens = s.integer("max_tokens");
  r.max_steps = s.integer("max_steps");
  const std::string precision = s.text("precision");
  r.precision = precision == "bf16" ? Precision::bf16 : precision == "fp32" ? Precision::fp32 : Precision::automatic;
  r.grad_clip = s.number("grad_clip");
  r.checkpoint_blocks = s.text("activation_checkpointing") == "block";
  r.skip_nonfinite = s.text("nonfinite") == "skip";
}

void read_optimizer(const Section& root, Recipe& r) {
  OptimizerConfig& o = r.optimizer;
  o.name = root.text("optimizer.name") == "muon" ? OptimizerConfig::Name::muon : OptimizerConfig::Name::adamw;
  o.lr = root.number("optimizer.lr");
  if (const YamlNode* betas = root.at("optimizer.betas")) {
    o.beta1 = *to_number(betas->items[0]);
    o.beta2 = *to_number(betas->items[1]);
  }
  o.eps = root.number("optimizer.eps");
  o.weight_decay = root.number("optimizer.weight_decay");
  using Name = LrScheduleConfig::Name;
  const std::string name = root.text("lr_scheduler.name");
  r.lr_scheduler.name = name == "wsd" ? Name::wsd : name == "linear" ? Name::linear : name == "constant" ? Name::constant : Name::cosine;
  r.lr_scheduler.warmup_steps = root.integer("lr_scheduler.warmup_steps");
  r.lr_scheduler.min_lr_ratio = root.number("lr_scheduler.min_lr_ratio");
  r.lr_scheduler.decay_ratio = root.number("lr_scheduler.decay_ratio");
}

void read_data(const Section& root, Recipe& r) {
  r.sft = root.text("task") == "sft";
  r.train_on_prompt = root.boolean("sft.train_on_prompt");
  r.too_long = root.text("sft.too_long") == "truncate" ? TooLong::truncate : TooLong::drop;
  const std::string packing = root.text("data.packing");
  r.packing = packing == "best_fit" || (packing.empty() && r.sft) ? Packing::best_fit : Packing::concat;
  r.document_mask = root.maybe_boolean("data.document_mask").value_or(r.packing == Packing::best_fit);
  r.validation = root.texts("data.validation");
}

void read_intervals(const Section& root, Recipe& r) {
  r.eval_interval = root.integer("eval.interval");
  r.eval_max_tokens = root.integer("eval.max_tokens");
  r.eval_trailing = root.integer("eval.trailing");
  r.eval_bins = root.integer("eval.bins");
  r.checkpoint_interval = root.integer("checkpoint.interval");
  r.keep_last = root.integer("checkpoint.keep_last");
  r.logging_interval = root.integer("logging.interval", 1);
  r.tensorboard = root.boolean("logging.tensorboard");
}

void read_parallel(const Section& root, Recipe& r) {
  r.data_ranks = root.integer("parallel.data", 1);
  r.lanes = root.integer("parallel.lanes");
  r.zero_stage = static_cast<int>(root.integer("parallel.zero_stage"));
  r.time_limit = root.number("parallel.time_limit", r.time_limit);
}

// max_steps on the command line stands against the file's max_tokens, and the other way round.
void clear_other_length(YamlNode& root, const std::vector<std::string>& overrides) {
  bool steps = false, tokens = false;
  for (const std::string& o : overrides) {
    steps |= o.starts_with("train.max_steps=");
    tokens |= o.starts_with("train.max_tokens=");
  }
  if (steps == tokens) return;
  for (auto& [name, section] : root.entries)
    if (name == "train") section.erase(steps ? "max_tokens" : "max_steps");
}

// What absence meant, spelled out.
void write_back(Recipe& r) {
  const auto set = [&](std::string_view path, std::string text) { set_path(r.tree, path, yaml_scalar(std::move(text)), "default"); };
  set("run.name", r.name);
  set("model.num_key_value_heads", std::to_string(r.model.num_key_value_heads));
  set("model.head_dim", std::to_string(r.model.head_dim));
  set("model.max_position_embeddings", std::to_string(r.model.max_position_embeddings));
  set("data.packing", r.packing == Packing::best_fit ? "best_fit" : "concat");
  set("data.document_mask", r.document_mask ? "true" : "false");
}

// Every type that is named in a part of the tree.
void replace_types(YamlNode& node, const YamlNode& type) {
  for (auto& [name, value] : node.entries) {
    if (name == "type" && value.kind == YamlNode::Kind::scalar)
      value = type;
    else
      replace_types(value, type);
  }
  for (YamlNode& item : node.items) replace_types(item, type);
}

// The tree with --attn and --hybrid-layers worked into its keys: they stand above every place where a type is named.
void write_options_back(const Recipe& r, YamlNode& tree) {
  const AttentionPlan& plan = r.attention;
  const YamlNode type = yaml_scalar(attention_type_name(plan.command_line ? plan.command_line->type : AttentionType::moba));
  for (const char* path : {"model.attention", "train.stages"}) {
    YamlNode part = *find_path(tree, path);
    replace_types(part, type);
    set_path(tree, path, std::move(part), "command line");
  }
  YamlNode full;
  full.kind = YamlNode::Kind::list;
  if (plan.hybrid_layers)
    for (const int64_t layer : parse_hybrid_layers(*plan.hybrid_layers, r.model.num_hidden_layers))
      full.items.push_back(yaml_scalar(std::to_string(layer)));
  set_path(tree, "model.attention.full_attention_layers", std::move(full), "command line");
}

[[noreturn]] void throw_all(const std::vector<std::string>& errors) { throw Error(fmt::format("{}", fmt::join(errors, "\n"))); }

}  // namespace

AttentionConfig parse_attention_option(const std::string& name, const AttentionConfig& base) {
  AttentionConfig out = base;
  out.naive = name == "moba_naive";
  const bool known = out.naive || name == "moba" || name == "full" || name == "window";
  MOBA_CHECK(known, "--attn {}: must be full, moba, moba_naive or window", name);
  out.type = attention_type_from_name(out.naive ? "moba" : name);
  return out;
}

Recipe read_recipe(const std::string& file, const RecipeOptions& options) {
  std::vector<std::string> errors;
  YamlNode written = parse_yaml_file(file, errors);
  if (!errors.empty()) throw_all(errors);
  if (written.where.empty()) written.where = file + ":1:1";
  for (const std::string& argument : options.overrides) apply_override(written, argument, errors);
  clear_other_length(written, options.overrides);
  check_against_table(written, errors);
  if (written.kind != YamlNode::Kind::map) throw_all(errors);  // nothing else can be said about it

  Recipe r;
  r.file = file;
  std::ifstream bytes(file, std::ios::binary);
  r.source.assign(std::istreambuf_iterator<char>(bytes), {});
  r.tree = with_defaults(written);
  const Section root(&r.tree);
  r.name = root.text("run.name");
  if (r.name.empty()) r.name = std::filesystem::path(file).stem().string();
  r.output_dir = root.text("run.output_dir");
  r.seed = static_cast<uint64_t>(root.integer("run.seed"));
  read_model(root.section("model"), r);
  read_attention(root.section("model.attention"), r);
  read_stages(root, r);
  read_train(root.section("train"), r);
  read_optimizer(root, r);
  read_data(root, r);
  read_intervals(root, r);
  read_parallel(root, r);
  check_recipe(r, written, options, errors);
  if (!options.allow_missing_inputs)
    for (const std::string& missing : missing_inputs(r, may_resume(r, options.resume))) errors.push_back(missing);
  if (!errors.empty()) throw_all(errors);

  if (options.attention) r.attention.command_line = parse_attention_option(*options.attention, r.attention.base);
  r.attention.hybrid_layers = options.hybrid_layers;
  write_back(r);
  return r;
}

std::string resolved_yaml(const Recipe& recipe) {
  const AttentionPlan& plan = recipe.attention;
  std::string options;
  if (plan.command_line)
    options += fmt::format(" --attn {}", plan.command_line->naive ? "moba_naive" : attention_type_name(plan.command_line->type));
  if (plan.hybrid_layers) options += fmt::format(" --hybrid-layers {}", *plan.hybrid_layers);
  if (options.empty()) return emit_yaml(recipe.tree);
  // The plain kernel has no key: it exists to check the others by.
  if (plan.command_line && plan.command_line->naive)
    return fmt::format("# The run was started with{0}, which is not in the keys below: add{0} to repeat it.\n", options) +
           emit_yaml(recipe.tree);
  YamlNode tree = recipe.tree;
  write_options_back(recipe, tree);
  return fmt::format("# The run was started with{}; model.attention below says the same without it.\n", options) + emit_yaml(tree);
}

}  // namespace moba
