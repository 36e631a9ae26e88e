#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/data/byte_level.h"
#include "src/data/tokenizer_json.h"

namespace moba {
namespace {

using nlohmann::ordered_json;

ordered_json byte_level() { return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}; }

ordered_json pre_tokenizer(const BpeModel& model) {
  if (model.patterns.empty()) return byte_level();
  ordered_json steps = ordered_json::array();
  for (const auto& pattern : model.patterns) {
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(byte_level());
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

ordered_json post_processor(const BpeModel& model) {
  if (model.bos < 0) return nullptr;
  const std::string& name = model.tokens[model.bos];
  const ordered_json begin = {{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  const ordered_json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json::array({begin, first})},
          {"pair", ordered_json::array({begin, first, second})},
          {"special_tokens", {{name, {{"id", name}, {"ids", ordered_json::array({model.bos})}, {"tokens", ordered_json::array({name})}}}}}};
}

}  // namespace

std::string write_tokenizer_json(const BpeModel& model) {
  ordered_json added = ordered_json::array(), vocab = ordered_json::object(), merges = ordered_json::array();
  for (const auto& s : model.specials) {
    added.push_back({{"id", s.id},
                     {"content", s.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  std::vector<bool> special(model.tokens.size(), false);
  for (const auto& s : model.specials) special[s.id] = true;
  // Appended directly: ordered_json looks for the key first, which would be quadratic.
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (!special[id] && !model.tokens[id].empty()) entries.push_back({byte_level_encode(model.tokens[id]), static_cast<int64_t>(id)});
  }
  for (const auto& m : model.merges)
    merges.push_back(byte_level_encode(model.tokens[m.left]) + " " + byte_level_encode(model.tokens[m.right]));

  ordered_json bpe = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", model.ignore_merges}};
  bpe["vocab"] = std::move(vocab);
  bpe["merges"] = std::move(merges);
  ordered_json root = {{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", pre_tokenizer(model)},
                       {"post_processor", post_processor(model)},
                       {"decoder", byte_level()}};
  root["model"] = std::move(bpe);
  return root.dump(2) + "\n";
}

}  // namespace moba
