#include "src/sweep/sweep_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "kernels/common/check.h"
#include "src/sweep/strict_map.h"

namespace moba::sweep {
namespace {

bool usable_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.front() != '-' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == std::string::npos;
}

// A later override takes the place of an earlier one; the two ways to state a run's length exclude each other.
bool replaces(const std::string& late, const std::string& early) {
  return late == early || (early == "train.max_steps" && late == "train.max_tokens") ||
         (early == "train.max_tokens" && late == "train.max_steps");
}

// One of them is a section that holds the other, or they exclude each other.
bool collide(const std::string& a, const std::string& b) { return replaces(a, b) || a.starts_with(b + ".") || b.starts_with(a + "."); }

void put(std::vector<Override>& list, Override add) {
  const auto replaced = [&](const Override& old) { return replaces(add.key, old.key); };
  list.erase(std::remove_if(list.begin(), list.end(), replaced), list.end());
  list.push_back(std::move(add));
}

class Reader {
 public:
  Reader(std::string file, std::vector<std::string>& errors) : errors_(errors) { out_.file = std::move(file); }

  SweepFile read(const YamlNode& root, const std::vector<Override>& command_line) {
    const StrictMap top(root, "", {"base", "overrides", "grid", "arms", "seeds", "margins", "published"}, errors_);
    base_ = top.text("base");
    common_ = overrides(top.at("overrides"), "overrides");
    read_arms(top);
    expand_grid(top.at("grid"));
    for (const Override& o : command_line) put_everywhere(o);
    check_names();
    read_seeds(root.get("seeds"));
    std::vector<std::string> names, groups;
    for (const Arm& arm : out_.arms) names.push_back(arm.name), groups.push_back(arm.group);
    if (const YamlNode* margins = top.at("margins")) {
      out_.margins = read_margins(*margins, names, errors_);
      out_.margins_yaml = emit_yaml(*margins);
    }
    if (const YamlNode* published = top.at("published")) out_.published = read_published(*published, names, groups);
    return std::move(out_);
  }

 private:
  template <class... Args>
  void complain(const std::string& where, fmt::format_string<Args...> format, Args&&... args) {
    errors_.push_back(fmt::format("{}: {}", where, fmt::format(format, std::forward<Args>(args)...)));
  }

  // Recipe keys are checked by reading the recipe; here only those that the sweep sets itself.
  bool allowed_key(const std::string& key, const std::string& where, const std::string& section) {
    if (key == "run.name" || key == "run.output_dir" || key == "run.seed") {
      complain(where, "{}.{}: the sweep sets it for every arm; {}", section, key,
               key == "run.seed" ? "list seeds under seeds:" : "give it on the command line to name the sweep's folder");
      return false;
    }
    return true;
  }

  std::vector<Override> overrides(const YamlNode* node, const std::string& section) {
    std::vector<Override> list;
    if (!node) return list;
    if (node->kind != YamlNode::Kind::map) {
      complain(node->where, "{}: must be a section of recipe keys, such as {{optimizer.lr: 1e-3}}", section);
      return list;
    }
    std::set<std::string> seen;
    flatten(*node, "", section, seen, list);
    return list;
  }

  // `optimizer: {lr: 1e-3}` and `optimizer.lr: 1e-3` mean the same.
  void flatten(const YamlNode& node, const std::string& prefix, const std::string& section, std::set<std::string>& seen,
               std::vector<Override>& list) {
    for (size_t i = 0; i < node.entries.size(); ++i) {
      const auto& [name, value] = node.entries[i];
      const std::string key = prefix.empty() ? name : prefix + "." + name;
      if (value.kind == YamlNode::Kind::map && !value.entries.empty()) {
        flatten(value, key, section, seen, list);
      } else if (!seen.insert(key).second) {
        complain(node.key_where[i], "{}.{}: repeated key", section, key);
      } else if (allowed_key(key, node.key_where[i], section)) {
        put(list, {key, flow_yaml(value), node.key_where[i]});
      }
    }
  }

  void read_arms(const StrictMap& top) {
    const YamlNode* list = top.at("arms");
    if (!list) {
      if (!top.at("grid")) complain(top.where(), "arms: missing; list at least one arm, or give a grid");
      Arm only;
      only.where = top.where();
      only.base = base_;
      only.overrides = common_;
      out_.arms.push_back(only);
      return check_base(only);
    }
    if (list->kind != YamlNode::Kind::list || list->items.empty())
      return complain(list->where, "arms: must be a list of arms, such as - {{name: full, attn: full}}");
    for (size_t i = 0; i < list->items.size(); ++i) {
      const std::string section = fmt::format("arms[{}]", i);
      const StrictMap map(list->items[i], section, {"name", "base", "group", "attn", "hybrid_layers", "overrides"}, errors_);
      Arm arm;
      arm.where = map.where();
      arm.name = map.text("name");
      if (arm.name.empty()) complain(map.where(), "{}.name: missing", section);
      arm.base = map.at("base") ? map.text("base") : base_;
      arm.group = map.text("group");
      if (map.at("attn")) arm.attention = map.text("attn");
      if (map.at("hybrid_layers")) arm.hybrid_layers = layers_text(*map.at("hybrid_layers"));
      arm.overrides = common_;
      for (Override& o : overrides(map.at("overrides"), section + ".overrides")) put(arm.overrides, std::move(o));
      check_base(arm);
      out_.arms.push_back(std::move(arm));
    }
  }

  void check_base(const Arm& arm) {
    if (arm.base.empty()) complain(arm.where, "base: missing; name the recipe that the arms start from");
  }

  // hybrid_layers: last3, or [0, 3, 7] as well as 0,3,7
  static std::string layers_text(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::list) return node.text;
    std::string text;
    for (const YamlNode& item : node.items) text += (text.empty() ? "" : ",") + item.text;
    return text;
  }

  void expand_grid(const YamlNode* grid) {
    if (!grid) return;
    if (grid->kind != YamlNode::Kind::map || grid->entries.empty())
      return complain(grid->where, "grid: must be a section of lists, such as {{optimizer.lr: [1e-3, 2e-3]}}");
    for (size_t k = 0; k < grid->entries.size(); ++k) {
      const auto& [key, values] = grid->entries[k];
      if (values.kind != YamlNode::Kind::list || values.items.empty()) {
        complain(values.where, "grid.{}: must be a list of values", key);
        continue;
      }
      if (!allowed_key(key, grid->key_where[k], "grid")) continue;
      std::vector<Arm> wider;
      for (const Arm& arm : out_.arms)
        for (const YamlNode& value : values.items) wider.push_back(with_value(arm, key, value));
      out_.arms = std::move(wider);
    }
  }

  static Arm with_value(Arm arm, const std::string& key, const YamlNode& value) {
    const std::string text = flow_yaml(value);
    std::string part = key.substr(key.rfind('.') + 1) + "-" + text;
    for (char& c : part)
      if (!usable_name(std::string("x") + c)) c = '_';
    arm.name += (arm.name.empty() ? "" : "_") + part;
    arm.where = value.where;
    if (key == "attn")
      arm.attention = text;
    else if (key == "hybrid_layers")
      arm.hybrid_layers = layers_text(value);
    else
      put(arm.overrides, {key, text, value.where});
    return arm;
  }

  // What arms differ in can't be set for all of them: two arms might become one.
  void put_everywhere(const Override& o) {
    for (const Arm& arm : out_.arms)
      for (const Override& own : arm.overrides)
        if (!is_common(own) && collide(o.key, own.key))
          return complain(o.where, "{}: arm '{}' sets {} itself ({}); change it there, or leave it out of the command line", o.key,
                          arm.name, own.key, own.where);
    for (Arm& arm : out_.arms) put(arm.overrides, o);
  }

  bool is_common(const Override& o) const {
    const auto same = [&](const Override& c) { return c.key == o.key && c.where == o.where; };
    return o.where.starts_with("command line") || std::any_of(common_.begin(), common_.end(), same);
  }

  void check_names() {
    std::set<std::string> seen;
    for (const Arm& arm : out_.arms) {
      if (!arm.name.empty() && !usable_name(arm.name))
        complain(arm.where, "arm name '{}': letters, digits, '.', '_' and '-' only (it names a folder)", arm.name);
      if (!arm.name.empty() && !seen.insert(arm.name).second) complain(arm.where, "arm name '{}' is used twice", arm.name);
    }
  }

  void read_seeds(const YamlNode* node) {
    if (!node) {
      out_.seeds = {1};
      return;
    }
    if (node->kind == YamlNode::Kind::null) return complain(node->where, "seeds: nothing is listed; give seeds=[1, 2]");
    const std::vector<YamlNode> items = node->kind == YamlNode::Kind::list ? node->items : std::vector<YamlNode>{*node};
    for (const YamlNode& item : items) {
      const auto seed = whole_number(item);
      if (!seed || *seed < 0)
        complain(item.where, "seeds: must be whole numbers from 0, such as [1, 2, 3]");
      else if (std::find(out_.seeds.begin(), out_.seeds.end(), static_cast<uint64_t>(*seed)) != out_.seeds.end())
        complain(item.where, "seeds: {} is listed twice", *seed);
      else
        out_.seeds.push_back(static_cast<uint64_t>(*seed));
    }
    if (items.empty()) complain(node->where, "seeds: the list is empty");
  }

  Published read_published(const YamlNode& node, const std::vector<std::string>& arms, const std::vector<std::string>& groups) {
    const StrictMap map(node, "published", {"source", "metric", "x_label", "points", "baseline", "fits"}, errors_);
    Published out;
    out.source = map.text("source");
    if (out.source.empty()) complain(map.where(), "published.source: missing; say where the figures come from");
    out.metric = map.at("metric") ? map.text("metric") : "eval_loss";
    check_metric(map.at("metric"), "published.metric", errors_);
    out.x_label = map.text("x_label");
    const auto point = [&](const YamlNode& item, const std::string& section) {
      const StrictMap p(item, section, {"arm", "label", "value"}, errors_);
      p.one_of("arm", arms);
      return Published::Point{p.text("arm"), p.at("label") ? p.text("label") : p.text("arm"), p.number("value").value_or(0)};
    };
    for (size_t i = 0; const YamlNode& item : map.list("points"))
      out.points.push_back(point(item, fmt::format("published.points[{}]", i++)));
    if (map.at("baseline")) out.baseline = point(*map.at("baseline"), "published.baseline");
    for (size_t i = 0; const YamlNode& item : map.list("fits")) {
      const StrictMap f(item, fmt::format("published.fits[{}]", i++), {"group", "a", "b"}, errors_);
      f.one_of("group", groups);
      out.fits.push_back({f.text("group"), f.number("a").value_or(0), f.number("b").value_or(0)});
    }
    return out;
  }

  std::vector<std::string>& errors_;
  SweepFile out_;
  std::string base_;
  std::vector<Override> common_;
};

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::string flow_yaml(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null: return "null";
    case YamlNode::Kind::list: {
      std::string out;
      for (const YamlNode& item : node.items) out += (out.empty() ? "" : ", ") + flow_yaml(item);
      return "[" + out + "]";
    }
    case YamlNode::Kind::map: {
      std::string out;
      for (const auto& [key, value] : node.entries) out += (out.empty() ? "" : ", ") + key + ": " + flow_yaml(value);
      return "{" + out + "}";
    }
    case YamlNode::Kind::scalar: break;
  }
  // Quoting rules are those of the tree's own writer: "v: TEXT\n".
  YamlNode map;
  map.set("v", node, "");
  std::string text = emit_yaml(map).substr(3);
  text.pop_back();
  return text;
}

SweepFile read_sweep(const std::string& file, const std::vector<std::string>& command_line) {
  std::vector<std::string> errors;
  MOBA_CHECK(std::filesystem::is_regular_file(file), "{}: cannot read the sweep file (sweep files lie in recipes/)", file);
  YamlNode root = parse_yaml_file(file, errors);
  if (!errors.empty()) throw Error(fmt::format("{}", fmt::join(errors, "\n")));
  if (root.where.empty()) root.where = file + ":1:1";
  std::vector<Override> recipe_keys;
  for (const std::string& argument : command_line) {
    if (argument.starts_with("seeds=")) {
      apply_override(root, argument, errors);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string where = fmt::format("command line '{}'", argument);
    if (equals == std::string::npos || equals == 0)
      errors.push_back(fmt::format("{}: not of the form section.key=value", where));
    else
      put(recipe_keys, {argument.substr(0, equals), argument.substr(equals + 1), where});
  }
  SweepFile out = Reader(file, errors).read(root, recipe_keys);
  if (!errors.empty()) throw Error(fmt::format("{}", fmt::join(errors, "\n")));
  out.source = read_bytes(file);
  out.name = std::filesystem::path(file).stem().string();
  return out;
}

}  // namespace moba::sweep
