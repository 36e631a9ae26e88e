#include "src/data/prepare.h"

#include <gtest/gtest.h>

#include <chrono>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "src/data/bpe_trainer.h"
#include "src/data/chat.h"
#include "src/data/dataset_stats.h"
#include "src/data/file_io.h"
#include "src/data/text_source.h"
#include "src/data/token_dataset.h"
#include "tests/data/data_files.h"

namespace moba::test {
namespace {

struct Document {
  std::string text;     // without the end token
  std::string counted;  // the tokens that count, as text
};

std::vector<Document> read_back(const std::string& path) {
  const TokenDataset data(path);
  data.verify();
  const auto tokenizer = make_byte_tokenizer();
  std::vector<Document> documents;
  const auto offsets = data.document_offsets();
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t count = offsets[d + 1] - offsets[d];
    std::vector<int32_t> tokens(count), counted;
    std::vector<uint8_t> mask(count);
    data.read_tokens(offsets[d], count, tokens.data());
    data.read_loss_mask(offsets[d], count, mask.data());
    EXPECT_EQ(tokens.back(), 256);
    tokens.pop_back();
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (mask[i]) counted.push_back(tokens[i]);
    }
    documents.push_back({tokenizer->decode(tokens), tokenizer->decode(counted)});
  }
  return documents;
}

std::vector<std::string> texts(const std::string& path) {
  std::vector<std::string> all;
  for (const auto& document : read_back(path)) all.push_back(document.text);
  return all;
}

PrepareResult prepare(const DataFolder& folder, std::vector<std::string> inputs, bool sft = false, bool join = false) {
  return prepare_dataset(*make_byte_tokenizer(), {std::move(inputs), folder.path("out.h5"), sft, join}, {});
}

std::string error_of(const DataFolder& folder, const std::string& contents, bool sft) {
  const auto path = folder.write("bad.jsonl", contents);
  try {
    prepare(folder, {path}, sft);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::corrupt_input);
    EXPECT_FALSE(std::filesystem::exists(folder.path("out.h5")));
    return error.what();
  }
  return "no error";
}

TEST(Prepare, ReadsTextJsonLinesAndFolders) {
  const DataFolder folder;
  folder.write("in/b.txt", "second");
  folder.write("in/a/x.c", "first\n");
  folder.write("in/.hidden", "no");
  folder.write("in/.git/config", "no");
  folder.write("in/empty.txt", "");
  const auto lines = folder.write("c.jsonl", "{\"text\": \"one\\u00e9\", \"id\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \"two\"}");
  const auto result = prepare(folder, {folder.path("in"), lines, folder.write("raw.bin", "\xff\x00\xfe")});
  EXPECT_EQ(texts(folder.path("out.h5")), (std::vector<std::string>{"first\n", "second", "oneé", "two", "\xff"}));
  EXPECT_EQ(result.documents, 5);
  EXPECT_EQ(result.empty, 2);
  EXPECT_EQ(result.text_bytes, 6 + 6 + 5 + 3 + 1);
  EXPECT_EQ(result.tokens, result.text_bytes + 5);
}

TEST(Prepare, JoinsFolders) {
  const DataFolder folder;
  folder.write("in/a/1.c", "one");
  folder.write("in/a/2.c", "two\n");
  folder.write("in/b/3.c", "three");
  prepare(folder, {folder.path("in")}, false, true);
  EXPECT_EQ(texts(folder.path("out.h5")), (std::vector<std::string>{"==> a/1.c <==\none\n==> a/2.c <==\ntwo\n", "==> b/3.c <==\nthree\n"}));
}

TEST(Prepare, DoesNotDependOnThreadsOrTime) {
  const DataFolder folder;
  std::string lines;
  for (int i = 0; i < 500; ++i) lines += "{\"text\": \"document " + std::string(i % 37, 'x') + std::to_string(i) + "\"}\n";
  const auto path = folder.write("a.jsonl", lines);
  const int threads = num_threads();
  std::vector<std::string> files;
  for (const int n : {1, 2, 4}) {
    if (n > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // nor on the time, which files keep in seconds
    set_num_threads(n);
    prepare(folder, {path});
    files.push_back(read_file(folder.path("out.h5")));
  }
  set_num_threads(threads);
  EXPECT_EQ(files[0], files[1]);
  EXPECT_EQ(files[0], files[2]);
}

TEST(Prepare, ErrorsNameFileAndLine) {
  const DataFolder folder;
  const std::string good = "{\"text\": \"a\"}\n";
  EXPECT_NE(error_of(folder, good + good + "{\"text\": 3}\n{\n", false).find("bad.jsonl:3: needs a string field"), std::string::npos);
  EXPECT_NE(error_of(folder, good + "\n{\"text\": \"a\n", false).find("bad.jsonl:3: not valid JSON"), std::string::npos);
  EXPECT_NE(error_of(folder, "[1]\n", false).find("bad.jsonl:1"), std::string::npos);
  EXPECT_NE(error_of(folder, good, true).find("bad.jsonl:1: neither \"messages\" nor"), std::string::npos);
  EXPECT_NE(error_of(folder, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n", true).find("no assistant turn"),
            std::string::npos);
  EXPECT_NE(error_of(folder, "{\"messages\": [{\"role\": \"bot\", \"content\": \"x\"}]}\n", true).find("unknown role \"bot\""),
            std::string::npos);
  EXPECT_NE(error_of(folder, "{\"messages\": [{\"role\": \"user\"}]}\n", true).find("\"content\" is missing"), std::string::npos);
  EXPECT_NE(error_of(folder, "{\"prompt\": \"x\"}\n", true).find("\"response\" is missing"), std::string::npos);
}

TEST(Prepare, RefusesWhatIsNotText) {
  const DataFolder folder;
  EXPECT_THROW(prepare(folder, {folder.path("none")}), Error);
  EXPECT_THROW(prepare(folder, {folder.write("a.txt.gz", "x")}), Error);
  EXPECT_THROW(prepare(folder, {folder.write("empty.txt", "")}), Error);
  EXPECT_THROW(prepare(folder, {folder.write("chat.txt", "x")}, true), Error);
}

// Lines that end in all ways, before all kinds of beginnings, far more than a piece.
std::string long_text(size_t bytes) {
  const char* ends[] = {"\n", "\n", "\n", "\r\n", " \n", "\n\n", "\n  \n\t", "!\n", "'\n", "\n/", "\xff\n", "é\n", "\u3000\n"};
  const char* words[] = {"word", " Word", "7", " 2024", "'s", "'LL", "//", " {", "naïve", "中文", "e\u0301", "\t", "  ", ";", "\xe2"};
  std::mt19937 random(7);
  std::string text;
  while (text.size() < bytes) {
    for (size_t n = 1 + random() % 12; n > 0; --n) text += words[random() % std::size(words)];
    text += ends[random() % std::size(ends)];
  }
  return text;
}

TEST(TextSource, GivesLongDocumentsInPieces) {
  const DataFolder folder;
  const std::string text = long_text(100'000);
  folder.write("in/a.txt", text);
  folder.write("in/b.txt", "");
  folder.write("in/c.txt", "short");
  for (const bool join : {false, true}) {
    TextSource whole({folder.path("in")}, join), cut({folder.path("in")}, join, 1000);
    while (const auto want = whole.next()) {
      EXPECT_TRUE(want->first && want->last);
      std::string got;
      for (auto piece = cut.next(); piece; piece = cut.next()) {
        EXPECT_EQ(piece->first, got.empty());
        EXPECT_LT(piece->text.size(), 4000u);
        EXPECT_EQ(piece->origin, want->origin);
        got += piece->text;
        if (piece->last) break;
        EXPECT_TRUE(piece->text.size() >= 1000u && piece->text.back() == '\n');
      }
      EXPECT_EQ(got, want->text);
    }
    EXPECT_FALSE(cut.next());
    EXPECT_EQ(cut.bytes_read(), cut.total_bytes());
  }
}

TEST(Prepare, PiecesOfALongDocumentChangeNoToken) {
  const DataFolder folder;
  const std::string text = long_text(5 << 20);
  const std::vector<std::string> files{folder.write("a.txt", "first"), folder.write("b.txt", text), folder.write("c.txt", "last")};
  for (const char* pattern : {"", "gpt2", "cl100k", "o200k"}) {
    std::unique_ptr<Tokenizer> tokenizer = make_byte_tokenizer();
    if (*pattern) {
      BpeTrainConfig config;
      config.inputs = {folder.write("sample.txt", long_text(50'000))};
      config.vocab_size = 400;
      config.pattern = pattern;
      tokenizer = train_bpe(config, {});
    }
    EXPECT_TRUE(tokenizer->may_cut_lines());
    PrepareConfig config;
    config.inputs = files;
    config.output = folder.path("out.h5");
    const auto result = prepare_dataset(*tokenizer, config, {});
    EXPECT_EQ(result.documents, 3);
    EXPECT_EQ(result.text_bytes, static_cast<int64_t>(text.size()) + 9);
    std::vector<int32_t> want;
    tokenizer->encode(text, want);
    const TokenDataset data(config.output);
    const auto offsets = data.document_offsets();
    ASSERT_EQ(offsets[2] - offsets[1], static_cast<int64_t>(want.size()) + 1);
    std::vector<int32_t> got(want.size());
    data.read_tokens(offsets[1], static_cast<int64_t>(got.size()), got.data());
    EXPECT_TRUE(got == want) << pattern;
  }
}

// Llama 3's tokenizer brings its own markup.
TEST(Chat, LlamaThreesMarkersMakeLlamaThreesMarkup) {
  auto json = nlohmann::json::parse(make_byte_tokenizer()->json());
  int id = 257;
  for (const char* marker : {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})
    json["added_tokens"].push_back({{"id", id++}, {"content", marker}, {"special", true}});
  const auto tokenizer = tokenizer_from_json(json.dump());
  const auto chat = encode_chat(*tokenizer, std::vector<ChatMessage>{{"user", "U"}, {"assistant", "A"}, {"tool", "T"}});
  EXPECT_EQ(tokenizer->decode(chat.tokens),
            "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>ipython<|end_header_id|>\n\nT<|eot_id|><|endoftext|>");
  EXPECT_EQ(chat.tokens.front(), 257);
  std::vector<int32_t> counted;
  for (size_t i = 0; i < chat.tokens.size(); ++i)
    if (chat.loss_mask[i]) counted.push_back(chat.tokens[i]);
  EXPECT_EQ(counted, (std::vector<int32_t>{'A', 259}));
}

TEST(Chat, OnlyAssistantTurnsAndTheirEndCount) {
  const DataFolder folder;
  const auto path = folder.write(
      "c.jsonl", R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"assistant","content":"A1"},)"
                 R"({"role":"user","content":"V"},{"role":"assistant","content":"A2"}]})"
                 "\n"
                 R"({"prompt":"P","response":"R"})");
  const auto result = prepare(folder, {path}, true);
  const auto documents = read_back(folder.path("out.h5"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
            "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n");
  EXPECT_EQ(documents[0].counted, "A1<|im_end|>A2<|im_end|>");
  EXPECT_EQ(documents[1].text, "<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\nR<|im_end|>\n");
  EXPECT_EQ(documents[1].counted, "R<|im_end|>");
  EXPECT_EQ(result.counted, static_cast<int64_t>(documents[0].counted.size() + documents[1].counted.size()));
}

TEST(Chat, UsesTheTokenizersSpecialTokens) {
  auto json = make_byte_tokenizer()->json();
  const std::string first = "\"added_tokens\": [";
  json.insert(json.find(first) + first.size(), R"({"id": 257, "content": "<|im_start|>"}, {"id": 258, "content": "<|im_end|>"},)");
  const auto tokenizer = tokenizer_from_json(json);
  const std::vector<ChatMessage> messages{{"user", "u"}, {"assistant", "<|im_end|>"}};
  const auto chat = encode_chat(*tokenizer, messages);
  std::vector<int32_t> want{257};
  tokenizer->encode("user\nu", want);
  want.push_back(258);
  tokenizer->encode("\n", want);
  want.push_back(257);
  tokenizer->encode("assistant\n", want);
  const size_t content = want.size();
  tokenizer->encode("<|im_end|>", want);  // a user's text cannot forge the marker
  EXPECT_EQ(want.size() - content, 10u);
  want.push_back(258);
  tokenizer->encode("\n", want);
  want.push_back(256);
  EXPECT_EQ(chat.tokens, want);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(chat.loss_mask[i], i >= content && i < content + 11);
}

TEST(DatasetStats, CountsLengthsAndBytes) {
  const DataFolder folder;
  prepare(folder, {folder.write("a.txt", "abc"), folder.write("b.txt", "defgh"), folder.write("c.txt", std::string(70'000, 'x'))});
  const auto stats = dataset_stats(TokenDataset(folder.path("out.h5")));
  EXPECT_EQ(stats.text_bytes, 70'008);
  EXPECT_EQ(stats.shortest, 4);
  EXPECT_EQ(stats.median, 6);
  EXPECT_EQ(stats.longest, 70'001);
  ASSERT_EQ(stats.histogram.size(), 2u);
  EXPECT_EQ(stats.histogram[0].below, 8);
  EXPECT_EQ(stats.histogram[0].documents, 2);
  EXPECT_EQ(stats.histogram[1].below, 131'072);
}

}  // namespace
}  // namespace moba::test
