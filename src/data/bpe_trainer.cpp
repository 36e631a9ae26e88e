#include "src/data/bpe_trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "src/data/chat.h"
#include "src/data/pretokenizer.h"
#include "src/data/text_source.h"
#include "src/data/tokenizer_json.h"

namespace moba {
namespace {

constexpr size_t kBatchBytes = 16 << 20;
constexpr size_t kPieceBytes = 1 << 20;
constexpr const char* kSpecials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

using WordCounts = std::unordered_map<std::string, int64_t>;

// The texts of a document; those of a chat are its contents.
std::vector<std::string> texts_of(RawDocument document) {
  if (!document.json) return {std::move(document.text)};
  try {
    const auto line = nlohmann::json::parse(document.text);
    if (line.contains("text")) return {parse_text_line(document.text)};
    std::vector<std::string> texts;
    for (auto& message : parse_chat(document.text)) texts.push_back(std::move(message.content));
    return texts;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not valid JSON: {}", document.origin, error.what()), ExitCode::corrupt_input);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", document.origin, error.what()), ExitCode::corrupt_input);
  }
}

// Pieces of about 1 MiB that end after a line, so that long documents too are counted by all threads.
std::vector<std::string_view> pieces_of(std::string_view text) {
  std::vector<std::string_view> pieces;
  while (text.size() > kPieceBytes) {
    const size_t line_end = text.find('\n', kPieceBytes);
    if (line_end == std::string_view::npos || line_end + 1 == text.size()) break;
    pieces.push_back(text.substr(0, line_end + 1));
    text.remove_prefix(line_end + 1);
  }
  pieces.push_back(text);
  return pieces;
}

class WordCounter {
 public:
  explicit WordCounter(const std::string& pattern) : pre_tokenizer_({pattern}), by_thread_(static_cast<size_t>(num_threads())) {}

  void count(const std::vector<std::string>& texts) {
    std::vector<std::string_view> pieces;
    for (const auto& text : texts) {
      for (const auto piece : pieces_of(text)) pieces.push_back(piece);
    }
    parallel_items(static_cast<int64_t>(pieces.size()), [&](int64_t i, int thread) {
      WordCounts& counts = by_thread_[thread];
      std::string word;  // kept, so that look-ups allocate only for new words
      pre_tokenizer_.split(pieces[i], [&](std::string_view piece) {
        if (piece.size() < 2) return;  // nothing to merge
        word.assign(piece);
        ++counts[word];
      });
    });
  }

  WordCounts take() {
    WordCounts all = std::move(by_thread_.front());
    for (size_t t = 1; t < by_thread_.size(); ++t) {
      for (const auto& [word, count] : by_thread_[t]) all[word] += count;
      by_thread_[t].clear();
    }
    return all;
  }

 private:
  PreTokenizer pre_tokenizer_;
  std::vector<WordCounts> by_thread_;
};

WordCounts count_words(const BpeTrainConfig& config, const TrainProgress& progress) {
  TextSource source(config.inputs, false);
  WordCounter counter(named_pattern(config.pattern));
  std::vector<std::string> batch;
  size_t bytes = 0;
  const auto flush = [&] {
    counter.count(batch);
    batch.clear();
    bytes = 0;
    if (progress) progress(TrainPhase::count, source.bytes_read(), source.total_bytes());
  };
  while (auto document = source.next()) {
    for (auto& text : texts_of(std::move(*document))) {
      bytes += text.size();
      batch.push_back(std::move(text));
    }
    if (bytes >= kBatchBytes) flush();
  }
  flush();
  return counter.take();
}

}  // namespace

std::unique_ptr<Tokenizer> train_bpe(const BpeTrainConfig& config, const TrainProgress& progress) {
  constexpr int32_t kSmallest = 256 + static_cast<int32_t>(std::size(kSpecials));
  MOBA_CHECK(config.vocab_size >= kSmallest && config.vocab_size <= 1 << 24, "vocabulary size {} is out of range: {} is the least",
             config.vocab_size, kSmallest);
  const int32_t merges = config.vocab_size - kSmallest;
  const WordCounts words = count_words(config, progress);

  BpeModel model;
  model.patterns = {named_pattern(config.pattern)};
  model.merges = learn_merges(words, merges, [&](int64_t done) {
    if (progress) progress(TrainPhase::merge, done, merges);
  });
  if (progress) progress(TrainPhase::merge, merges, merges);
  MOBA_CHECK(static_cast<int32_t>(model.merges.size()) == merges,
             "the text has only enough words for a vocabulary of {}, not {}: give more text or ask for less",
             kSmallest + model.merges.size(), config.vocab_size);
  for (int byte = 0; byte < 256; ++byte) model.tokens.emplace_back(1, static_cast<char>(byte));
  for (const auto& m : model.merges) model.tokens.push_back(model.tokens[m.left] + model.tokens[m.right]);
  for (const char* special : kSpecials) {
    model.specials.push_back({special, static_cast<int32_t>(model.tokens.size())});
    model.tokens.emplace_back(special);
  }
  model.eos = model.specials.front().id;
  std::string json = write_tokenizer_json(model);
  return make_bpe_tokenizer(std::move(model), std::move(json));
}

}  // namespace moba
