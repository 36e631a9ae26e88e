// moba-data: tokenizers and token datasets from text.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/common/check.h"
#include "src/data/bpe_trainer.h"
#include "src/data/dataset_stats.h"
#include "src/data/file_io.h"
#include "src/data/output_file.h"
#include "src/data/prepare.h"
#include "src/data/text_source.h"
#include "src/data/token_dataset.h"
#include "src/data/unigram.h"
#include "tools/common/command_line.h"
#include "tools/common/program.h"
#include "tools/moba_data/progress.h"

namespace moba {
namespace {

struct Options {
  std::string tokenizer, pattern, dataset, output, unigram;
  bool json = false;
  PrepareConfig prepare;
  BpeTrainConfig train;
};

// Said before the work starts, not after it.
void require_folder_of(const std::string& file) {
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  MOBA_CHECK(folder.empty() || std::filesystem::is_directory(folder),
             "--output {}: the folder {} does not exist; make it with: mkdir -p {}", file, folder.string(), folder.string());
}

void run_train(const Options& o) {
  require_folder_of(o.output);
  check_output_file(o.output, TextSource(o.train.inputs, false).files());
  ProgressBar counting("counting words"), merging("merging", "merges");
  const auto tokenizer = train_bpe(o.train, [&](TrainPhase phase, int64_t done, int64_t total) {
    (phase == TrainPhase::count ? counting : merging).update(done, total);
  });
  counting.end();
  merging.end();
  write_file(o.output, tokenizer->json());
  fmt::print("{}: vocabulary {}, end token {}\n", o.output, tokenizer->vocab_size(), tokenizer->eos_token_id());
}

void run_prepare(const Options& o) {
  require_folder_of(o.prepare.output);
  check_output_file(o.prepare.output, {o.tokenizer});
  const auto tokenizer = load_tokenizer(o.tokenizer, o.pattern);
  PrepareResult r;
  {
    ProgressBar bar("tokenising");
    r = prepare_dataset(*tokenizer, o.prepare, [&](int64_t done, int64_t total) { bar.update(done, total); });
  }
  fmt::print("{}: {} documents, {} tokens ({} counted), {} bytes of text, {:.3f} bytes per token\n", o.prepare.output, r.documents,
             r.tokens, r.counted, r.text_bytes, static_cast<double>(r.text_bytes) / static_cast<double>(r.tokens));
  if (r.empty > 0) fmt::print("{} empty documents left out\n", r.empty);
}

void run_verify(const Options& o) {
  const TokenDataset data(o.dataset);
  data.verify();
  fmt::print("{}: whole; {} documents, {} tokens, content hash {:016x}\n", o.dataset, data.info().documents, data.info().tokens,
             data.info().content_hash);
}

void print_stats_json(const DatasetInfo& info, const DatasetStats& stats, std::optional<double> unigram) {
  nlohmann::ordered_json out{{"documents", info.documents},     {"tokens", info.tokens},
                             {"vocab_size", info.vocab_size},   {"text_bytes", stats.text_bytes},
                             {"counted", stats.counted},        {"shortest_document", stats.shortest},
                             {"median_document", stats.median}, {"longest_document", stats.longest}};
  if (unigram) out["unigram_loss"] = *unigram;
  fmt::print("{}\n", out.dump());
}

void run_stats(const Options& o) {
  const TokenDataset data(o.dataset);
  const DatasetInfo& info = data.info();
  const DatasetStats stats = dataset_stats(data);
  std::optional<double> unigram;
  if (!o.unigram.empty()) unigram = unigram_loss(data, TokenDataset(o.unigram));
  if (o.json) return print_stats_json(info, stats, unigram);
  const double tokens = static_cast<double>(info.tokens);
  fmt::print("documents        {}\ntokens           {}\n", info.documents, info.tokens);
  fmt::print("vocabulary       {} ({}-bit tokens), end token {}, begin token {}\n", info.vocab_size, info.wide ? 32 : 16, info.eos_token_id,
             info.bos_token_id < 0 ? "none" : std::to_string(info.bos_token_id));
  fmt::print("tokenizer        sha256 {}\n", info.tokenizer_sha256);
  fmt::print("content hash     {:016x}\n", info.content_hash);
  fmt::print("text bytes       {}\nbytes per token  {:.3f}\n", stats.text_bytes, static_cast<double>(stats.text_bytes) / tokens);
  fmt::print("counted targets  {} ({:.1f} %){}\n", stats.counted, 100 * static_cast<double>(stats.counted) / tokens,
             info.has_loss_mask ? "" : ", no loss mask");
  fmt::print("document length  shortest {}, median {}, longest {}\n\n", stats.shortest, stats.median, stats.longest);
  fmt::print("{:>12} {:>12} {:>12} {:>14}\n", "length from", "to", "documents", "tokens");
  for (const auto& bin : stats.histogram) {
    fmt::print("{:>12} {:>12} {:>12} {:>14}\n", bin.below / 2, bin.below - 1, bin.documents, bin.tokens);
  }
  if (unigram) fmt::print("\nunigram loss     {:.4f} nats per token on {} (add-one, fitted here)\n", *unigram, o.unigram);
}

int run(int argc, char** argv) {
  Options o;
  const CommandLine app{"Tokenizers and token datasets from text", "moba-data"};
  app.require_subcommand();
  app.add_threads();

  const auto tokenizer = app.add_subcommand("tokenizer", "Train a tokenizer").require_subcommand();
  const auto train = tokenizer.add_subcommand("train", "Learn a byte-level BPE vocabulary");
  train.add_option("--vocab-size", o.train.vocab_size, "Size with the 256 bytes and 3 special tokens").required();
  train.add_option("--input", o.train.inputs, "Text files, .jsonl files, folders of them").required();
  train.add_option("--output", o.output, "tokenizer.json to write").required();
  train.add_option("--pattern", o.train.pattern, "Pre-tokenizer: gpt2, cl100k, o200k or llama3").show_default();
  train.callback([&] { run_train(o); });

  const auto prepare = app.add_subcommand("prepare", "Tokenise text into an HDF5 token dataset");
  prepare.add_option("--tokenizer", o.tokenizer, "byte, a tokenizer.json, or a .tiktoken rank file").required();
  prepare.add_option("--pattern", o.pattern, "Pre-tokenizer of a .tiktoken file: gpt2, cl100k, o200k or llama3");
  prepare.add_option("--input", o.prepare.inputs, "Text files, .jsonl files with a \"text\" field, folders of them").required();
  prepare.add_option("--output", o.prepare.output, "Dataset to write, X.h5").required();
  prepare.add_flag("--sft", o.prepare.sft, "Inputs are .jsonl chats: {\"messages\": [...]} or {\"prompt\", \"response\"}");
  prepare.add_flag("--join-folders", o.prepare.join_folders, "Files of a folder make one document, each below a line with its path");
  prepare.callback([&] { run_prepare(o); });

  const auto verify = app.add_subcommand("verify", "Check every byte of a dataset against its checksums");
  verify.add_option("dataset", o.dataset, "X.h5").required();
  verify.callback([&] { run_verify(o); });

  const auto stats = app.add_subcommand("stats", "Documents, tokens, lengths, bytes per token");
  stats.add_option("dataset", o.dataset, "X.h5").required();
  stats.add_option("--unigram", o.unigram, "Y.h5: loss on it of an add-one unigram model fitted on the dataset");
  stats.add_flag("--json", o.json, "One JSON object instead of a table");
  stats.callback([&] { run_stats(o); });

  if (const auto code = app.parse(argc, argv)) return *code;
  return 0;
}

}  // namespace
}  // namespace moba

int main(int argc, char** argv) {
  return moba::run_program("moba-data: ", [&] { return moba::run(argc, argv); });
}
