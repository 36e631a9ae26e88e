#include "src/data/prepare.h"

#include <exception>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "src/data/chat.h"
#include "src/data/output_file.h"
#include "src/data/text_source.h"
#include "src/data/token_dataset.h"

namespace moba {
namespace {

constexpr size_t kBatchBytes = 16 << 20;
constexpr size_t kBatchDocuments = 1 << 14;
constexpr size_t kPieceBytes = 1 << 20;  // of a long document, so that all threads work on it and memory does not hold it whole

struct Work {
  RawDocument raw;  // a document or a piece of one
  EncodedDocument encoded;
  int64_t text_bytes = 0;
  std::exception_ptr error;
};

EncodedDocument encode_text(const Tokenizer& tokenizer, const RawDocument& raw, std::string_view text) {
  EncodedDocument document;
  if (raw.first && tokenizer.bos_token_id() >= 0) document.tokens.push_back(tokenizer.bos_token_id());
  tokenizer.encode(text, document.tokens);
  if (raw.last) document.tokens.push_back(tokenizer.eos_token_id());
  return document;
}

void encode(const Tokenizer& tokenizer, bool sft, Work& work) {
  if (sft) {
    const auto messages = parse_chat(work.raw.text);
    for (const auto& m : messages) work.text_bytes += static_cast<int64_t>(m.content.size());
    work.encoded = encode_chat(tokenizer, messages);
    return;
  }
  const std::string text = work.raw.json ? parse_text_line(work.raw.text) : std::move(work.raw.text);
  work.text_bytes = static_cast<int64_t>(text.size());
  if (!text.empty()) work.encoded = encode_text(tokenizer, work.raw, text);
}

// Errors gain the place they came from; the input is what is wrong, so they end the program as corrupt input.
void encode_at_origin(const Tokenizer& tokenizer, bool sft, Work& work) {
  try {
    encode(tokenizer, sft, work);
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not valid JSON: {}", work.raw.origin, error.what()), ExitCode::corrupt_input);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", work.raw.origin, error.what()), ExitCode::corrupt_input);
  }
}

std::vector<Work> read_batch(TextSource& source, bool sft) {
  std::vector<Work> batch;
  for (size_t bytes = 0; bytes < kBatchBytes && batch.size() < kBatchDocuments;) {
    auto raw = source.next();
    if (!raw) break;
    MOBA_CHECK(!sft || raw->json, "{}: --sft takes .jsonl files of chats only", raw->origin);
    bytes += raw->text.size();
    batch.emplace_back().raw = std::move(*raw);
  }
  return batch;
}

}  // namespace

PrepareResult prepare_dataset(const Tokenizer& tokenizer, const PrepareConfig& config, const Progress& progress) {
  TextSource source(config.inputs, config.join_folders, tokenizer.may_cut_lines() ? kPieceBytes : 0);
  check_output_file(config.output, source.files());
  TokenDatasetWriter writer(config.output, tokenizer.vocab_size(), tokenizer.eos_token_id(), tokenizer.bos_token_id(), tokenizer.json(),
                            config.sft);
  PrepareResult result;
  for (auto batch = read_batch(source, config.sft); !batch.empty(); batch = read_batch(source, config.sft)) {
    parallel_items(static_cast<int64_t>(batch.size()), [&](int64_t i, int) {
      try {
        encode_at_origin(tokenizer, config.sft, batch[i]);
      } catch (...) {
        batch[i].error = std::current_exception();
      }
    });
    for (Work& work : batch) {
      if (work.error) std::rethrow_exception(work.error);  // the first in file order
      const auto& document = work.encoded;
      if (document.tokens.empty()) {
        ++result.empty;
        continue;
      }
      writer.add_part(document.tokens, document.loss_mask);
      if (work.raw.last) writer.end_document(), ++result.documents;
      result.tokens += static_cast<int64_t>(document.tokens.size());
      result.text_bytes += work.text_bytes;
      result.counted += config.sft ? std::accumulate(document.loss_mask.begin(), document.loss_mask.end(), int64_t{0})
                                   : static_cast<int64_t>(document.tokens.size());
    }
    if (progress) progress(source.bytes_read(), source.total_bytes());
  }
  writer.finish();
  return result;
}

}  // namespace moba
