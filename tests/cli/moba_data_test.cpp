// The program from outside: exit codes, messages, and tools/corpus without
// network.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "src/data/file_io.h"
#include "src/data/tokenizer.h"
#include "tests/data/data_files.h"
#include "tests/support/shell.h"

namespace moba::test {
namespace {

Outcome moba_data(const std::string& arguments) { return shell(std::string(MOBA_BIN_DIR) + "/moba-data " + arguments); }

bool says(const Outcome& outcome, const std::string& text) { return outcome.output.find(text) != std::string::npos; }

#define EXPECT_SAYS(outcome, exit_code, text)   \
  do {                                          \
    const Outcome& o_ = (outcome);              \
    EXPECT_EQ(o_.code, exit_code) << o_.output; \
    EXPECT_TRUE(says(o_, text)) << o_.output;   \
  } while (0)

TEST(MobaData, FromTextToAVerifiedDataset) {
  const DataFolder folder;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "the quick brown fox " + std::to_string(i) + " jumps over the lazy dog\n";
  folder.write("in/a.txt", text);
  folder.write("in/b.jsonl", "{\"text\": \"another document\"}\n");
  const std::string in = folder.path("in"), tokenizer = folder.path("tokenizer.json"), out = folder.path("x.h5");
  EXPECT_SAYS(moba_data("tokenizer train --vocab-size 300 --input " + in + " --output " + tokenizer), 0, "vocabulary 300");
  EXPECT_SAYS(moba_data("prepare --tokenizer " + tokenizer + " --input " + in + " --output " + out), 0, "2 documents");
  EXPECT_SAYS(moba_data("verify " + out), 0, "whole; 2 documents");
  const Outcome stats = moba_data("stats " + out);
  EXPECT_SAYS(stats, 0, "documents        2");
  EXPECT_TRUE(says(stats, "text bytes       " + std::to_string(text.size() + 16)));
  const auto again = load_tokenizer(tokenizer);
  std::vector<int32_t> ids;
  again->encode(text, ids);
  EXPECT_EQ(again->decode(ids), text);
}

TEST(MobaData, ExitCodesSayWhatWentWrong) {
  const DataFolder folder;
  const std::string text = folder.write("a.txt", "text"), out = folder.path("x.h5");
  const std::string prepare = "prepare --output " + out + " --input " + text + " --tokenizer ";
  EXPECT_SAYS(moba_data(""), 2, "subcommand");
  EXPECT_SAYS(moba_data("prepare --tokenizer byte"), 2, "required");
  EXPECT_SAYS(moba_data("stats a b"), 2, "");
  EXPECT_SAYS(moba_data("--threads 0 stats a"), 2, "threads");
  EXPECT_SAYS(moba_data("--help"), 0, "prepare");
  EXPECT_SAYS(moba_data("verify " + folder.path("none.h5")), 2, "no such token dataset");
  EXPECT_SAYS(moba_data("verify " + text), 3, "not an HDF5 file");
  EXPECT_SAYS(moba_data(prepare + folder.path("none.json")), 2, "No such file");
  EXPECT_SAYS(moba_data(prepare + folder.write("bad.json", "{}")), 3, "bad.json: tokenizer.json:");
  EXPECT_SAYS(moba_data(prepare + "byte --pattern gpt2"), 2, ".tiktoken");
  EXPECT_SAYS(moba_data(prepare + "byte --sft"), 2, "--sft takes .jsonl");
  EXPECT_SAYS(moba_data("prepare --tokenizer byte --input " + text + " --output " + folder.path("none/x.h5")), 2, "mkdir -p");
  EXPECT_SAYS(moba_data("tokenizer train --vocab-size 5000 --input " + text + " --output " + out), 2, "give more text or ask for less");
  EXPECT_FALSE(std::filesystem::exists(out));
}

// A full disk behind ">": what nobody can read was not done.
TEST(MobaData, AFullDiskBehindTheOutputIsFive) {
  const DataFolder folder;
  const std::string data = folder.path("x.h5");
  ASSERT_EQ(moba_data("prepare --tokenizer byte --input " + folder.write("a.txt", "text") + " --output " + data).code, 0);
  const auto to_full_disk = [](const std::string& arguments) {
    return shell("(" + std::string(MOBA_BIN_DIR) + "/moba-data " + arguments + " > /dev/full)");
  };
  for (const char* arguments : {"stats --json ", "stats ", "verify "}) EXPECT_SAYS(to_full_disk(arguments + data), 5, "cannot be written");
  EXPECT_SAYS(to_full_disk("--help"), 5, "cannot be written");
  EXPECT_SAYS(to_full_disk("verify none.h5"), 2, "no such token dataset");
}

// What stands under the output's name is an older output or stays.
TEST(MobaData, AnOutputReplacesNoInputAndNothingThatIsNoFile) {
  const DataFolder folder;
  const std::string text = folder.write("in/val.txt", "some text"), link = folder.path("link.txt"), pipe = folder.path("pipe");
  std::filesystem::create_symlink(text, link);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const std::string tokenizer = folder.write("tokenizer.json", make_byte_tokenizer()->json());
  const auto prepare = [](const std::string& input, const std::string& with, const std::string& output) {
    return moba_data("prepare --tokenizer " + with + " --input " + input + " --output " + output);
  };
  EXPECT_SAYS(prepare(text, "byte", text), 2, "is the input");
  EXPECT_SAYS(prepare(text, "byte", link), 2, "is the input");
  EXPECT_SAYS(prepare(folder.path("in"), "byte", text), 2, "is the input");
  EXPECT_SAYS(prepare(text, tokenizer, tokenizer), 2, "is the input");
  EXPECT_SAYS(prepare(text, "byte", pipe), 2, "not a regular file");
  EXPECT_SAYS(prepare(text, "byte", folder.path("in")), 2, "not a regular file");
  EXPECT_SAYS(moba_data("tokenizer train --vocab-size 260 --input " + text + " --output " + text), 2, "is the input");
  EXPECT_SAYS(moba_data("tokenizer train --vocab-size 260 --input " + text + " --output " + pipe), 2, "not a regular file");
  EXPECT_EQ(read_file(text), "some text");
  EXPECT_EQ(read_file(tokenizer), make_byte_tokenizer()->json());
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  // A neighbour's file, whatever it is called, and an older output under the very name.
  const std::string out = folder.write("x.h5", "old"), neighbour = folder.write("x.h5.tmp", "mine");
  EXPECT_SAYS(prepare(text, "byte", out), 0, "1 documents");
  EXPECT_SAYS(moba_data("verify " + out), 0, "whole");
  EXPECT_EQ(read_file(neighbour), "mine");
  int64_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path(""))) ++files;
  EXPECT_EQ(files, 6) << "something was left behind";
}

// tools/corpus with an apt-get of our own.
Outcome corpus(const DataFolder& folder, const std::string& apt_get, const std::string& arguments) {
  std::filesystem::permissions(folder.write("bin/apt-get", "#!/bin/sh\n" + apt_get), std::filesystem::perms::owner_all);
  return shell("PATH=" + folder.path("bin") + ":$PATH XDG_CACHE_HOME=" + folder.path("cache") + " " + MOBA_SOURCE_DIR + "/tools/corpus " +
               arguments);
}

TEST(Corpus, SaysInOneSentenceWhatIsMissing) {
  const DataFolder folder;
  const std::string target = folder.path("corpus");
  const std::string uris =
      "case \"$*\" in *print-uris*) for p in r-cran-janeaustenr bible-kjv "
      "bible-kjv-text libreadline8; do echo \"'http://x/$p' ${p}_1_all.deb "
      "SIZE "
      "SHA256:00\"; done;; *) echo 'E: Temporary failure resolving x' >&2; "
      "exit 100;; esac\n";
  const auto with_size = [&](const std::string& size) { return std::string(uris).replace(uris.find("SIZE"), 4, size); };
  EXPECT_SAYS(corpus(folder, "echo 'E: Unable to locate package bible-kjv' >&2; exit 100\n", "small " + target), 1,
              "(bible-kjv): run `apt-get update`");
  EXPECT_SAYS(corpus(folder, with_size("1000000"), "small " + target), 1,
              "check the network and run it again (E: Temporary failure resolving x)");
  EXPECT_SAYS(corpus(folder, with_size("1000000"), "small " + target), 1, "downloading 4.0 MB");
  EXPECT_SAYS(corpus(folder, with_size("9000000000000000"), "small " + target), 1, "free some space");
  folder.write("full/something.txt", "x");
  EXPECT_SAYS(corpus(folder, with_size("1"), "small " + folder.path("full")), 1, "is not empty and holds no corpus");
  EXPECT_SAYS(corpus(folder, "exit 1\n", "huge " + target), 2, "invalid choice");
  EXPECT_FALSE(std::filesystem::exists(target));
}

// With packages, cmake, corpus and moba-data of our own: what the build is configured with.
TEST(Dataset, ANewBuildNeedsNoPackagesOfTests) {
  const DataFolder folder;
  const auto program = [&](const std::string& name, const std::string& script) {
    std::filesystem::permissions(folder.write(name, "#!/bin/sh\n" + script), std::filesystem::perms::owner_all);
  };
  for (const char* name : {"dataset", "lib.sh"})
    program(std::string("tools/") + name, read_file(std::string(MOBA_SOURCE_DIR) + "/tools/" + name));
  program("tools/corpus", "mkdir -p \"$2\"\n");
  program("bin/dpkg-query", "echo 'install ok installed'\n");
  program("bin/apt-get", "exit 1\n");
  const std::string root = folder.path("");
  program("bin/cmake", "echo \"$@\" >> " + root + "log; cd " + root + "; mkdir -p build/release/bin; printf '#!/bin/sh\\n' > " +
                           "build/release/bin/moba-data; chmod +x build/release/bin/moba-data\n");
  const std::string run = "PATH=" + root + "bin:$PATH bash " + root + "tools/dataset quickstart";
  EXPECT_SAYS(shell(run), 0, "are ready");
  EXPECT_NE(read_file(root + "log").find("--preset release -DMOBA_TESTS=OFF\n"), std::string::npos) << read_file(root + "log");
  // Where tools/test has configured the build, that stays.
  std::filesystem::remove_all(root + "build/release/bin");
  std::filesystem::remove(root + "log");
  folder.write("build/release/build.ninja", "");
  EXPECT_SAYS(shell(run), 0, "are ready");
  EXPECT_NE(read_file(root + "log").find("--preset release\n"), std::string::npos) << read_file(root + "log");
}

TEST(Corpus, DoesNothingWhenComplete) {
  const DataFolder folder;
  folder.write("c/train/a.txt", "hello");
  folder.write("c/corpus.json", R"({"kind": "small", "format": 1, "files": [{"path": "train/a.txt", "bytes": 5}]})");
  EXPECT_SAYS(corpus(folder, "echo called; exit 1\n", "small " + folder.path("c")), 0, "is complete");
  folder.write("c/train/a.txt", "cut");
  EXPECT_SAYS(corpus(folder, "exit 1\n", "small " + folder.path("c")), 1, "apt-get update");
}

}  // namespace
}  // namespace moba::test
