#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "kernels/common/check.h"
#include "src/data/byte_level.h"
#include "src/data/pretokenizer.h"
#include "src/data/tokenizer_json.h"

namespace moba {
namespace {

using nlohmann::json;
using IdOf = std::unordered_map<std::string, int32_t>;

constexpr int64_t kLargestId = 1 << 24;

[[noreturn]] void refuse(const std::string& what) { throw Error("tokenizer.json: " + what, ExitCode::corrupt_input); }

void only_keys(const json& object, const std::string& where, std::initializer_list<const char*> known) {
  if (!object.is_object()) refuse(where + " must be an object");
  for (const auto& item : object.items()) {
    if (std::ranges::none_of(known, [&](const char* k) { return item.key() == k; })) refuse(where + "." + item.key() + " is not supported");
  }
}

// Supported only when absent, null, false, 0 or empty.
void must_be_off(const json& object, const std::string& where, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto value = object.find(key);
    if (value == object.end() || value->is_null() || *value == false || *value == 0 || *value == 0.0 || *value == "") continue;
    refuse(where + "." + key + " is not supported");
  }
}

std::string type_of(const json& object) { return object.is_object() ? object.value("type", std::string()) : std::string(); }

int32_t checked_id(const json& id, const std::string& token) {
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kLargestId)
    refuse("the id of \"" + token + "\" is out of range");
  return id.get<int32_t>();
}

void put_token(BpeModel& model, int32_t id, const std::string& bytes) {
  if (static_cast<size_t>(id) >= model.tokens.size()) model.tokens.resize(static_cast<size_t>(id) + 1);
  if (!model.tokens[id].empty()) refuse(fmt::format("id {} has two tokens", id));
  model.tokens[id] = bytes;
}

// Added tokens come first: a vocabulary may list them too, as text.
void read_added_tokens(const json& root, BpeModel& model) {
  if (!root.contains("added_tokens")) return;
  for (const auto& added : root.at("added_tokens")) {
    only_keys(added, "added_tokens", {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    const auto content = added.at("content").get<std::string>();
    if (content.empty()) refuse("an added token is empty");
    const int32_t id = checked_id(added.at("id"), content);
    put_token(model, id, content);
    model.specials.push_back({content, id});
  }
}

IdOf read_vocab(const json& vocab, BpeModel& model) {
  IdOf ids;
  std::string bytes;
  for (const auto& [token, value] : vocab.items()) {
    const int32_t id = checked_id(value, token);
    const bool special =
        std::ranges::any_of(model.specials, [&, &token = token](const auto& s) { return s.id == id && s.content == token; });
    if (special) continue;
    if (!byte_level_decode(token, bytes) || bytes.empty()) refuse("vocabulary entry \"" + token + "\" is not byte-level text");
    put_token(model, id, bytes);
    ids.emplace(token, id);
  }
  return ids;
}

void read_merges(const json& merges, const IdOf& ids, BpeModel& model) {
  const auto id_of = [&](const std::string& token) {
    const auto found = ids.find(token);
    if (found == ids.end()) refuse("a merge needs \"" + token + "\", which the vocabulary lacks");
    return found->second;
  };
  for (const auto& merge : merges) {
    std::string left, right;
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) refuse("merge \"" + text + "\" is not two tokens");
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      if (!merge.is_array() || merge.size() != 2) refuse("a merge is not two tokens");
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    model.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
}

void read_pre_tokenizer(const json& pre, BpeModel& model) {
  if (type_of(pre) == "Sequence") {
    only_keys(pre, "pre_tokenizer", {"type", "pretokenizers"});
    const auto& steps = pre.at("pretokenizers");
    for (size_t i = 0; i < steps.size(); ++i) {
      const bool last = i + 1 == steps.size();
      if (last != (type_of(steps[i]) == "ByteLevel")) refuse("pre_tokenizer must be Split steps and one ByteLevel at the end");
      read_pre_tokenizer(steps[i], model);
    }
    if (steps.empty()) refuse("pre_tokenizer is empty");
  } else if (type_of(pre) == "ByteLevel") {
    only_keys(pre, "ByteLevel", {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (pre.value("add_prefix_space", true)) refuse("ByteLevel.add_prefix_space is not supported");
    if (pre.value("use_regex", true)) model.patterns.push_back(named_pattern("gpt2"));
  } else if (type_of(pre) == "Split") {
    only_keys(pre, "Split", {"type", "pattern", "behavior", "invert"});
    only_keys(pre.at("pattern"), "Split.pattern", {"Regex"});
    if (pre.at("behavior") != "Isolated") refuse("Split.behavior other than Isolated is not supported");
    must_be_off(pre, "Split", {"invert"});
    model.patterns.push_back(pre.at("pattern").at("Regex").get<std::string>());
  } else {
    refuse("pre_tokenizer \"" + type_of(pre) + "\" is not supported (ByteLevel, or Split and ByteLevel)");
  }
}

int32_t special_id(const BpeModel& model, const std::string& content) {
  const auto found = std::ranges::find(model.specials, content, &BpeModel::Special::content);
  if (found == model.specials.end()) refuse("post_processor uses \"" + content + "\", which is no added token");
  return found->id;
}

// ByteLevel only moves offsets; a template may put one special token before the text (begin) and one behind (end).
void read_post_processor(const json& post, BpeModel& model) {
  if (post.is_null() || type_of(post) == "ByteLevel") return;
  if (type_of(post) == "Sequence") {
    for (const auto& step : post.at("processors")) read_post_processor(step, model);
    return;
  }
  if (type_of(post) != "TemplateProcessing") refuse("post_processor \"" + type_of(post) + "\" is not supported");
  bool text_seen = false;
  for (const auto& part : post.at("single")) {
    if (part.contains("Sequence") && !text_seen) {
      text_seen = true;
      continue;
    }
    if (!part.contains("SpecialToken")) refuse("post_processor.single is not supported");
    int32_t& slot = text_seen ? model.eos : model.bos;
    if (slot >= 0) refuse("post_processor.single puts more than one special token on a side");
    slot = special_id(model, part.at("SpecialToken").at("id").get<std::string>());
  }
}

void find_end_token(BpeModel& model) {
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<|eot_id|>", "<|im_end|>", "<｜end▁of▁sentence｜>"}) {
    if (model.eos >= 0) return;
    const auto found = std::ranges::find(model.specials, name, &BpeModel::Special::content);
    if (found != model.specials.end()) model.eos = found->id;
  }
  if (model.eos < 0) refuse("no end token among the added tokens (<|endoftext|>, <|end_of_text|>, </s>, ...)");
}

BpeModel read(const json& root) {
  only_keys(root, "file",
            {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"});
  must_be_off(root, "file", {"truncation", "padding", "normalizer"});
  const json& model_json = root.at("model");
  if (model_json.contains("type") && type_of(model_json) != "BPE") refuse("model \"" + type_of(model_json) + "\" is not supported (BPE)");
  only_keys(model_json, "model",
            {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
             "ignore_merges", "vocab", "merges"});
  must_be_off(model_json, "model",
              {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback"});
  if (root.contains("decoder") && !root.at("decoder").is_null() && type_of(root.at("decoder")) != "ByteLevel")
    refuse("decoder other than ByteLevel is not supported");

  BpeModel model;
  model.ignore_merges = model_json.value("ignore_merges", false);
  read_added_tokens(root, model);
  const IdOf ids = read_vocab(model_json.at("vocab"), model);
  read_merges(model_json.at("merges"), ids, model);
  read_pre_tokenizer(root.at("pre_tokenizer"), model);
  read_post_processor(root.value("post_processor", json()), model);
  find_end_token(model);
  return model;
}

}  // namespace

BpeModel read_tokenizer_json(std::string_view text) {
  try {
    return read(json::parse(text));
  } catch (const json::exception& error) {
    refuse(error.what());
  }
}

}  // namespace moba
