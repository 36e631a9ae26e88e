// Documents out of files, folders and JSON lines, one after another in a fixed order (folders recursively by path).
#pragma once
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "src/data/file_io.h"

namespace moba {

struct RawDocument {
  std::string origin;  // "file" or "file:line", for errors
  std::string text;    // the document, or the JSON line
  bool json = false;
  bool first = true, last = true;  // false for a piece of a document that is not its beginning, not its end
};

class TextSource {
 public:
  // *.jsonl is read line by line, any other file is one document. join_folders: all files lying directly in one folder make one
  // document, in order of their names, each below a line "==> path <==". Compressed and binary containers are refused.
  // piece_bytes: 0, or documents come in pieces of at least so many bytes that end where find_safe_cut says, so that memory holds
  // pieces only; JSON lines stay whole.
  TextSource(const std::vector<std::string>& inputs, bool join_folders, size_t piece_bytes = 0);
  std::optional<RawDocument> next();
  std::vector<std::string> files() const;  // all of them
  int64_t total_bytes() const { return total_bytes_; }
  int64_t bytes_read() const { return bytes_read_; }

 private:
  struct Group {  // one document, or one file of JSON lines
    std::vector<std::string> files;
    std::string root;  // for the headers of joined files
    bool joined = false;
  };
  std::optional<RawDocument> next_line();
  RawDocument next_piece();
  bool read_more();

  std::vector<Group> groups_;
  size_t next_group_ = 0;
  // The document being read: its files from next_file_ on are still closed, buffer_ has what was read and not yet given out.
  const Group* reading_ = nullptr;
  size_t next_file_ = 0, piece_bytes_ = 0;
  File file_;
  int64_t file_offset_ = 0, file_size_ = 0;
  std::string buffer_;
  bool begun_ = false;  // a piece of it was given out
  std::ifstream lines_;
  std::string lines_path_;
  int64_t line_ = 0;
  int64_t total_bytes_ = 0, bytes_read_ = 0;
};

// The "text" field of a JSON line; Error says what is wrong with the line.
std::string parse_text_line(const std::string& json_line);

}  // namespace moba
