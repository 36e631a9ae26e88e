// A temporary folder with small token datasets, removed at the end of a test.
#pragma once
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "src/data/token_dataset.h"

namespace moba::test {

class DataFolder {
 public:
  DataFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "moba-data-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
  }
  ~DataFolder() { std::filesystem::remove_all(root_); }
  DataFolder(const DataFolder&) = delete;
  DataFolder& operator=(const DataFolder&) = delete;

  std::string path(const std::string& name) const { return (root_ / name).string(); }

  std::string write(const std::string& name, const std::string& contents) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    std::ofstream(path(name), std::ios::binary) << contents;
    return path(name);
  }

  std::string dataset(const std::string& name, const std::vector<std::vector<int32_t>>& documents) const {
    TokenDatasetWriter writer(path(name), 300, 256, -1, "{}", false);
    for (const auto& document : documents) writer.add_document(document);
    writer.finish();
    return path(name);
  }

  // `documents` documents of `length` tokens; token i of the file is i. The last token of a document is no end token.
  std::string counting_dataset(const std::string& name, int length, int documents, int vocab_margin) const {
    TokenDatasetWriter writer(path(name), length * documents + vocab_margin, -1, -1, "{}", false);
    std::vector<int32_t> tokens(length);
    for (int d = 0; d < documents; ++d) {
      for (int t = 0; t < length; ++t) tokens[t] = d * length + t;
      writer.add_document(tokens);
    }
    writer.finish();
    return path(name);
  }

 private:
  std::filesystem::path root_;
};

}  // namespace moba::test
