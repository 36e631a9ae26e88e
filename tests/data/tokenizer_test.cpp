#include "src/data/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/common/check.h"
#include "src/data/bpe_model.h"
#include "src/data/bpe_trainer.h"
#include "src/data/byte_level.h"
#include "src/data/file_io.h"
#include "src/data/pretokenizer.h"
#include "src/data/tiktoken.h"
#include "src/data/tokenizer_json.h"
#include "tests/data/data_files.h"

namespace moba::test {
namespace {

using Pieces = std::vector<std::string>;
using Ids = std::vector<int32_t>;

Pieces split(const std::string& pattern, std::string_view text) {
  Pieces pieces;
  PreTokenizer({pattern}).split(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

Ids encode(const Tokenizer& tokenizer, std::string_view text) {
  Ids ids;
  tokenizer.encode(text, ids);
  return ids;
}

std::string source_text() {
  std::string text;
  for (const char* file : {"src/data/pretokenizer.cpp", "src/data/sampler.cpp", "src/data/tokenizer.h", "kernels/common/check.h"}) {
    text += read_file(std::string(MOBA_SOURCE_DIR) + "/" + file);
  }
  return text;
}

std::unique_ptr<Tokenizer> trained(int32_t vocab_size = 600, const std::string& pattern = "cl100k") {
  const DataFolder folder;
  BpeTrainConfig config;
  config.inputs = {folder.write("text.txt", source_text())};
  config.vocab_size = vocab_size;
  config.pattern = pattern;
  return train_bpe(config, {});
}

std::vector<std::string> texts_of_all_kinds() {
  std::vector<std::string> texts{
      "",
      " ",
      "Hello, world!",
      "It is a truth universally acknowledged, that a single man\n\n  in possession",
      "naïve café — Ελληνικά, русский, 中文字符, हिन्दी, العربية, 👩‍👩‍👧 e\u0301",
      "int main() {\n\treturn 0x1F;  // done\r\n}\n\n\n",
      "<|endoftext|> is text <|im_start|>",
      "\xff\xfe broken \xc3 utf-8 \xed\xa0\x80 \xf0\x9f\x98 end\xe2",
      std::string("nul \0 byte", 10),
      std::string(5000, 'a') + std::string(300, '\n') + std::string(777, '=')};
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    texts.push_back(bytes);
  }
  texts.push_back(source_text());
  return texts;
}

void expect_round_trips(const Tokenizer& tokenizer) {
  for (const auto& text : texts_of_all_kinds()) EXPECT_EQ(tokenizer.decode(encode(tokenizer, text)), text);
}

TEST(ByteLevel, IsGpt2sAlphabet) {
  EXPECT_EQ(byte_level_encode("a \n\x7f\xad\xff"), "aĠĊġŃÿ");
  std::string all, back;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_TRUE(byte_level_decode(byte_level_encode(all), back));
  EXPECT_EQ(back, all);
  for (const char* bad : {" ", "\n", "中", "\xc4"}) EXPECT_FALSE(byte_level_decode(bad, back)) << bad;
}

TEST(Utf8, FindsTheWellFormedPrefix) {
  EXPECT_EQ(valid_utf8_prefix("abc\u00e9\u4e2d\U0001F600"), 12u);
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe4\xb8", "\xff"}) {
    EXPECT_EQ(valid_utf8_prefix(std::string("12345678x") + bad), 9u) << ::testing::PrintToString(bad);
  }
}

TEST(PreTokenizer, Gpt2Splits) {
  const std::string p = named_pattern("gpt2");
  EXPECT_EQ(split(p, "Hello world's  end, 123abc"), (Pieces{"Hello", " world", "'s", " ", " end", ",", " 123", "abc"}));
  EXPECT_EQ(split(p, "I'm we'LL\n\n x  "), (Pieces{"I", "'m", " we", "'", "LL", "\n\n", " x", "  "}));
  EXPECT_EQ(split(p, "a\n\n b"), (Pieces{"a", "\n\n", " b"}));
}

TEST(PreTokenizer, Cl100kSplits) {
  const std::string p = named_pattern("cl100k");
  EXPECT_EQ(split(p, "we'LL pay 12345$\n\n  now"), (Pieces{"we", "'LL", " pay", " ", "123", "45", "$\n\n", " ", " now"}));
  EXPECT_EQ(split(p, "(foo)\tbar"), (Pieces{"(foo", ")", "\tbar"}));
}

TEST(PreTokenizer, O200kSplits) {
  const std::string p = named_pattern("o200k");
  EXPECT_EQ(split(p, "HelloWorld it's HTTPServer"), (Pieces{"Hello", "World", " it's", " HTTPServer"}));
  EXPECT_EQ(split(p, "a/b//\n"), (Pieces{"a", "/b", "//\n"}));
}

// U+180E is no White_Space since Unicode 6.3; the narrow no-break space and the line separator are.
TEST(PreTokenizer, SpacesAreUnicodesWhiteSpace) {
  EXPECT_EQ(split(named_pattern("gpt2"), "a\u180eb\u202fc"), (Pieces{"a", "\u180e", "b", "\u202f", "c"}));
  EXPECT_EQ(split(named_pattern("gpt2"), "!\u180e! "), (Pieces{"!\u180e!", " "}));
  EXPECT_EQ(split(R"(\s+)", "a\u180e \u2028b"), (Pieces{"a\u180e", " \u2028", "b"}));
  EXPECT_EQ(split(R"(\S+)", "a\u180e\u3000b"), (Pieces{"a\u180e", "\u3000", "b"}));
  EXPECT_EQ(split(R"([^\s]+)", "\u0085\u180e"), (Pieces{"\u0085", "\u180e"}));
  // Every space of the table, and no other character.
  const std::vector<std::pair<char32_t, char32_t>> spaces = {{0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
                                                             {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                                             {0x205f, 0x205f}, {0x3000, 0x3000}};
  const PreTokenizer space({R"(\s)"});
  for (char32_t c = 1; c < 0x3100; ++c) {
    std::string text = "x";
    if (c < 0x80) text += static_cast<char>(c);
    if (c >= 0x80 && c < 0x800) text += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    if (c >= 0x800)
      text += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    size_t pieces = 0;
    space.split(text, [&](std::string_view) { ++pieces; });
    const bool listed = std::ranges::any_of(spaces, [&](const auto& s) { return c >= s.first && c <= s.second; });
    ASSERT_EQ(pieces, listed ? 2u : 1u) << static_cast<uint32_t>(c);
  }
}

TEST(PreTokenizer, KeepsEveryByte) {
  for (const char* name : {"gpt2", "cl100k", "o200k", "llama3"}) {
    for (const auto& text : texts_of_all_kinds()) {
      std::string joined;
      for (const auto& piece : split(named_pattern(name), text)) joined += piece;
      EXPECT_EQ(joined, text);
    }
  }
  EXPECT_EQ(split("b*", "abbc"), (Pieces{"a", "bb", "c"}));  // empty matches cut nothing
  EXPECT_EQ(split("x", "éxé"), (Pieces{"é", "x", "é"}));
}

// Wherever a text may be cut, in texts of few kinds of characters that meet in all ways.
TEST(PreTokenizer, SafeCutsChangeNoPiece) {
  const char* parts[] = {"a",  "Z", "5",  "!", "'",       "s",  "/",      "\n",   "\n",  "\n",
                         "\r", " ", "\t", "é", "e\u0301", "中", "\u3000", "\xff", "\xe2"};
  std::mt19937 random(11);
  int cuts = 0;
  for (const char* name : {"gpt2", "cl100k", "o200k"}) {
    const PreTokenizer pre({named_pattern(name)});
    const auto pieces = [&](std::string_view text, Pieces out = {}) {
      pre.split(text, [&](std::string_view piece) { out.emplace_back(piece); });
      return out;
    };
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (size_t n = random() % 16; n > 0; --n) text += parts[random() % std::size(parts)];
      for (size_t at = find_safe_cut(text, 0); at != std::string::npos; at = find_safe_cut(text, at + 1), ++cuts) {
        const std::string_view view(text);
        ASSERT_EQ(pieces(view.substr(at), pieces(view.substr(0, at))), pieces(text)) << name << " " << ::testing::PrintToString(text);
      }
    }
  }
  EXPECT_GT(cuts, 500);
  EXPECT_EQ(find_safe_cut("ab\nc", 3), 3u);
  EXPECT_EQ(find_safe_cut("ab\nc", 4), std::string::npos);
  for (const char* none : {"", "\n", "\na", "a\n", "a\n b", " \nb", "a\n/", "a\r\nb"}) EXPECT_EQ(find_safe_cut(none, 0), std::string::npos);
}

TEST(PreTokenizer, StagesCutPiecesFurther) {
  Pieces pieces;
  PreTokenizer({"\\d{1,2}", " ?[a-z]+"}).split("ab cd123", [&](std::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_EQ(pieces, (Pieces{"ab", " cd", "12", "3"}));
}

TEST(PreTokenizer, RefusesWhatPcre2WouldMisread) {
  for (const char* bad : {R"([\p{L}&&[^a]]+)",
                          R"([a-z&&b])",
                          R"([\w--\d])",
                          R"([a~~b])",
                          R"([a[bc]])",
                          R"(\h+)",
                          R"([\v])",
                          "(",
                          "[a",
                          R"(\s+$)",
                          "^a",
                          R"((?m:.+))",
                          "(?im)a",
                          R"(\w+)",
                          R"([\w])",
                          R"(\W)",
                          R"(a\b)",
                          R"(\p{N}{1,3}+)",
                          "a{2}+",
                          "a{2}?",
                          "a{,3}"}) {
    EXPECT_THROW(PreTokenizer({bad}), Error) << bad;
  }
  for (const char* good : {R"([^\]&-]+)", R"([]a]+)", R"(\[\[&&)", R"([a\[b])", "a--b", R"([$^])", R"(\$\^)", R"(\p{N}{1,3}|\p{L}++|x?+)",
                           R"((?i:'s)|(?=m)(?!m)(?:m))", R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)", "a{1,2}?", R"([\b{2}+])"})
    EXPECT_NO_THROW(PreTokenizer({good})) << good;
}

TEST(ByteTokenizer, IdsAreBytes) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(encode(*tokenizer, "a\xff"), (Ids{97, 255}));
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->eos_token_id(), 256);
  EXPECT_EQ(tokenizer->special_token_id("<|im_start|>"), -1);
  EXPECT_THROW(tokenizer->decode(Ids{257}), Error);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), Error);
  expect_round_trips(*tokenizer);
}

TEST(ByteTokenizer, ItsFileMeansTheSameAsABpe) {
  const auto tokenizer = make_byte_tokenizer();
  const auto same = tokenizer_from_json(tokenizer->json());
  const auto bpe = make_bpe_tokenizer(read_tokenizer_json(tokenizer->json()), tokenizer->json());
  for (const auto& text : texts_of_all_kinds()) {
    EXPECT_EQ(encode(*same, text), encode(*tokenizer, text));
    EXPECT_EQ(encode(*bpe, text), encode(*tokenizer, text));
  }
  EXPECT_EQ(bpe->vocab_size(), 257);
  EXPECT_EQ(bpe->eos_token_id(), 256);
}

// The rule by brute force: count all adjacent pairs anew, take the most frequent (ties: lower ids), replace everywhere.
std::vector<BpeModel::Merge> brute_force_merges(const std::unordered_map<std::string, int64_t>& words, int merges) {
  std::vector<std::pair<Ids, int64_t>> all;
  for (const auto& [word, count] : words)
    all.push_back({Ids(word.size()), count}),
        std::ranges::transform(word, all.back().first.begin(), [](char c) { return static_cast<uint8_t>(c); });
  std::vector<BpeModel::Merge> learned;
  for (int m = 0; m < merges; ++m) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [ids, count] : all) {
      for (size_t i = 0; i + 1 < ids.size(); ++i) counts[{ids[i], ids[i + 1]}] += count;
    }
    std::pair<int32_t, int32_t> best;
    int64_t most = 0;
    for (const auto& [pair, count] : counts) {
      if (count > most) most = count, best = pair;
    }
    if (most == 0) break;
    learned.push_back({best.first, best.second, 256 + m});
    for (auto& [ids, count] : all) {
      Ids merged;
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool here = i + 1 < ids.size() && ids[i] == best.first && ids[i + 1] == best.second;
        merged.push_back(here ? 256 + m : ids[i]);
        i += here;
      }
      ids = merged;
    }
  }
  return learned;
}

TEST(BpeTraining, EqualsBruteForce) {
  std::mt19937 random(3);
  for (int round = 0; round < 8; ++round) {
    std::unordered_map<std::string, int64_t> words;
    for (int w = 0; w < 60; ++w) {
      std::string word(2 + random() % 12, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % (1 + round % 4));
      words[word] += 1 + random() % 5;
    }
    const auto got = learn_merges(words, 80), want = brute_force_merges(words, 80);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].left, want[i].left) << i;
      ASSERT_EQ(got[i].right, want[i].right) << i;
      ASSERT_EQ(got[i].merged, want[i].merged) << i;
    }
  }
}

TEST(BpeTraining, GivesTheSizeAskedForAndSpecialTokensLast) {
  const auto tokenizer = trained(600);
  EXPECT_EQ(tokenizer->vocab_size(), 600);
  EXPECT_EQ(tokenizer->special_token_id("<|endoftext|>"), 597);
  EXPECT_EQ(tokenizer->special_token_id("<|im_start|>"), 598);
  EXPECT_EQ(tokenizer->special_token_id("<|im_end|>"), 599);
  EXPECT_EQ(tokenizer->eos_token_id(), 597);
  EXPECT_EQ(tokenizer->bos_token_id(), -1);
  const std::string text = source_text();
  EXPECT_LT(static_cast<double>(encode(*tokenizer, text).size()), 0.5 * static_cast<double>(text.size()));
  for (const int32_t id : encode(*tokenizer, "<|endoftext|><|im_end|>")) EXPECT_LT(id, 597);  // text is never parsed for them
}

TEST(BpeTraining, RefusesSizesItCannotReach) {
  EXPECT_THROW(trained(258), Error);
  EXPECT_THROW(trained(1'000'000), Error);
}

TEST(BpeTokenizer, RoundTripsAnyBytes) {
  for (const char* pattern : {"gpt2", "cl100k", "o200k"}) expect_round_trips(*trained(500, pattern));
}

TEST(BpeTokenizer, LongPiecesMergeLikeShortOnes) {
  const auto tokenizer = trained(700);
  const BpeModel model = read_tokenizer_json(tokenizer->json());
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string piece(2 + random() % 120, 'a');  // below and above the length where the algorithm changes
    for (char& c : piece) c = "etaoinsr"[random() % 8];
    Ids want(piece.size());
    std::ranges::transform(piece, want.begin(), [](char c) { return static_cast<uint8_t>(c); });
    for (const auto& m : model.merges) {  // rank by rank, left to right
      Ids merged;
      for (size_t i = 0; i < want.size(); ++i) {
        const bool here = i + 1 < want.size() && want[i] == m.left && want[i + 1] == m.right;
        merged.push_back(here ? m.merged : want[i]);
        i += here;
      }
      want = merged;
    }
    ASSERT_EQ(encode(*tokenizer, piece), want) << piece;
  }
}

TEST(TokenizerJson, ReadBackGivesTheSameIds) {
  const auto tokenizer = trained(600);
  const auto again = tokenizer_from_json(tokenizer->json());
  for (const auto& text : texts_of_all_kinds()) EXPECT_EQ(encode(*again, text), encode(*tokenizer, text));
  EXPECT_EQ(again->json(), tokenizer->json());
  EXPECT_EQ(again->vocab_size(), 600);
  EXPECT_EQ(again->eos_token_id(), 597);
  EXPECT_EQ(write_tokenizer_json(read_tokenizer_json(tokenizer->json())), tokenizer->json());
}

TEST(TokenizerJson, ReadsGpt2AndLlama3Layouts) {
  auto root = nlohmann::json::parse(make_byte_tokenizer()->json());
  root["model"].erase("type");
  root["model"]["vocab"]["ab"] = 257;
  root["model"]["vocab"]["abc"] = 258;
  root["model"]["vocab"]["<|endoftext|>"] = 256;
  root["model"]["merges"] = {"a b", "b c"};
  root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  EXPECT_THROW(tokenizer_from_json(root.dump()), Error);  // "bc" has no token
  root["model"]["merges"] = nlohmann::json::array({nlohmann::json::array({"a", "b"})});
  EXPECT_EQ(encode(*tokenizer_from_json(root.dump()), "abc ab"), (Ids{257, 'c', ' ', 257}));

  root["model"]["ignore_merges"] = true;
  root["added_tokens"].push_back({{"id", 259}, {"content", "<|begin_of_text|>"}, {"special", true}});
  root["post_processor"] = nlohmann::json::parse(R"({"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",
      "single":[{"SpecialToken":{"id":"<|begin_of_text|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]}]})");
  const auto llama = tokenizer_from_json(root.dump());
  EXPECT_EQ(encode(*llama, "abc"), (Ids{258}));
  EXPECT_EQ(llama->bos_token_id(), 259);
}

TEST(TokenizerJson, RefusesWhatItDoesNotSupport) {
  const auto change = [](const char* pointer, const nlohmann::json& value) {
    auto root = nlohmann::json::parse(trained(300)->json());
    root[nlohmann::json::json_pointer(pointer)] = value;
    return root.dump();
  };
  EXPECT_NO_THROW(tokenizer_from_json(change("/model/dropout", nullptr)));
  const std::pair<const char*, nlohmann::json> bad[] = {{"/normalizer", {{"type", "NFC"}}},
                                                        {"/model/type", "Unigram"},
                                                        {"/model/unk_token", "<unk>"},
                                                        {"/model/byte_fallback", true},
                                                        {"/model/dropout", 0.1},
                                                        {"/model/end_of_word_suffix", "</w>"},
                                                        {"/model/new_feature", 1},
                                                        {"/something", 1},
                                                        {"/decoder", {{"type", "WordPiece"}}},
                                                        {"/truncation", {{"max_length", 5}}},
                                                        {"/pre_tokenizer", {{"type", "Whitespace"}}},
                                                        {"/pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", true}}},
                                                        {"/pre_tokenizer/pretokenizers/0/behavior", "Removed"},
                                                        {"/pre_tokenizer/pretokenizers/0/invert", true},
                                                        {"/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "[a&&b]"}}},
                                                        {"/post_processor", {{"type", "BertProcessing"}}},
                                                        {"/added_tokens", nlohmann::json::array()},
                                                        {"/model/vocab/a", 98},
                                                        {"/model/vocab/a", -1},
                                                        {"/model/merges/0", "a"}};
  for (const auto& [pointer, value] : bad) EXPECT_THROW(tokenizer_from_json(change(pointer, value)), Error) << pointer << " " << value;
  EXPECT_THROW(tokenizer_from_json("{"), Error);
  EXPECT_THROW(tokenizer_from_json("[]"), Error);
}

// cl100k and o200k leave ids without a token between and before their special tokens.
TEST(BpeTokenizer, IdsWithoutATokenStandForNoText) {
  auto root = nlohmann::json::parse(make_byte_tokenizer()->json());
  root["added_tokens"].push_back({{"id", 260}, {"content", "<|endofprompt|>"}, {"special", true}});
  const auto tokenizer = tokenizer_from_json(root.dump());
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  EXPECT_EQ(unused_ids(*tokenizer), (Ids{257, 258, 259}));
  EXPECT_EQ(tokenizer->decode(Ids{'a', 257, 'b', 259}), "ab");
  EXPECT_THROW(tokenizer->decode(Ids{261}), Error);
  EXPECT_TRUE(unused_ids(*make_byte_tokenizer()).empty());
}

// An independent reader of the same file; needs Python with the package tokenizers.
TEST(TokenizerJson, HuggingFaceGivesTheSameIds) {
  if (std::system("python3 -c 'import tokenizers' > /dev/null 2>&1") != 0) GTEST_SKIP() << "Python package tokenizers is not installed";
  const DataFolder folder;
  for (const char* pattern : {"gpt2", "cl100k", "o200k"}) {
    const auto tokenizer = trained(700, pattern);
    const std::string file = folder.write("tokenizer.json", tokenizer->json());
    std::string contents = source_text() + "naïve café — Ελληνικά we'LL 中文\u3000 \t\r\n 12345  x";
    for (size_t at; (at = contents.find("<|")) != std::string::npos;) contents.erase(at, 1);  // they look for special tokens in text
    const std::string text = folder.write("text.txt", contents);
    const std::string ids = folder.path("ids.txt");
    const std::string script =
        "import sys, tokenizers; t = tokenizers.Tokenizer.from_file(sys.argv[1]); "
        "s = open(sys.argv[2], newline='', encoding='utf-8').read(); open(sys.argv[3], 'w').write(' '.join(map(str, t.encode(s).ids)))";
    ASSERT_EQ(std::system(("python3 -c \"" + script + "\" " + file + " " + text + " " + ids).c_str()), 0);
    std::ifstream in(ids);
    const Ids theirs{std::istream_iterator<int32_t>(in), {}};
    EXPECT_EQ(encode(*tokenizer, read_file(text)), theirs) << pattern;
  }
}

std::string base64(const std::string& bytes) {
  static const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += k <= bytes.size() - i ? alphabet[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

TEST(Tiktoken, RanksGiveTheIdsOfTheirMerges) {
  const DataFolder folder;
  const auto tokenizer = trained(600);
  const BpeModel model = read_tokenizer_json(tokenizer->json());
  std::string ranks;
  for (int id = 0; id < 597; ++id) ranks += base64(model.tokens[id]) + " " + std::to_string(id) + "\n";
  const auto path = folder.write("x.tiktoken", ranks);
  const auto read = load_tokenizer(path, "cl100k");
  EXPECT_EQ(read->eos_token_id(), 597);
  EXPECT_EQ(read->special_token_id("<|im_end|>"), 599);
  for (const auto& text : texts_of_all_kinds()) {
    EXPECT_EQ(read->decode(encode(*read, text)), text);
    EXPECT_EQ(encode(*tokenizer_from_json(read->json()), text), encode(*read, text));
  }
  EXPECT_EQ(encode(*read, source_text()), encode(*tokenizer, source_text()));

  EXPECT_THROW(load_tokenizer(path), Error);
  EXPECT_THROW(load_tokenizer(path, "p50k"), Error);
  EXPECT_THROW(load_tokenizer(folder.write("bad.tiktoken", "YQ== 0\nYg=="), "gpt2"), Error);
  EXPECT_THROW(load_tokenizer(folder.write("few.tiktoken", "YQ== 0\n"), "gpt2"), Error);
  EXPECT_THROW(load_tokenizer("byte", "gpt2"), Error);
  EXPECT_THROW(load_tokenizer(folder.path("missing.json")), Error);
}

}  // namespace
}  // namespace moba::test
