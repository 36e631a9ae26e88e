#include "src/data/text_source.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/common/check.h"
#include "src/data/pretokenizer.h"

namespace moba {
namespace fs = std::filesystem;
namespace {

bool is_json_lines(const std::string& path) { return fs::path(path).extension() == ".jsonl"; }

void refuse_containers(const std::string& path) {
  static constexpr std::array kContainers{".gz",      ".xz",    ".zst", ".bz2",  ".zip", ".tar",
                                          ".parquet", ".arrow", ".h5",  ".hdf5", ".pdf", ".epub"};
  const std::string extension = fs::path(path).extension().string();
  for (const char* container : kContainers)
    MOBA_CHECK(extension != container, "{}: {} files are not text; unpack or convert it first", path, container);
}

// Regular files below `folder` whose name and folders do not start with a dot, by path.
std::vector<std::string> files_below(const std::string& folder) {
  std::vector<std::string> files;
  try {
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator(); ++entry) {
      const bool hidden = entry->path().filename().string().starts_with('.');
      if (entry->is_directory() && hidden) entry.disable_recursion_pending();
      if (entry->is_regular_file() && !hidden) files.push_back(entry->path().string());
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(fmt::format("{}: cannot be listed: {}", folder, error.code().message()));
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace

TextSource::TextSource(const std::vector<std::string>& inputs, bool join_folders, size_t piece_bytes) : piece_bytes_(piece_bytes) {
  MOBA_CHECK(!inputs.empty(), "no input given");
  for (const auto& input : inputs) {
    MOBA_CHECK(fs::exists(input), "{}: no such file or folder", input);
    const bool folder = fs::is_directory(input);
    const auto files = folder ? files_below(input) : std::vector{input};
    MOBA_CHECK(!files.empty(), "{}: the folder holds no files", input);
    std::map<std::string, Group> joined;
    for (const auto& file : files) {
      refuse_containers(file);
      total_bytes_ += static_cast<int64_t>(fs::file_size(file));
      if (folder && join_folders && !is_json_lines(file)) {
        Group& group = joined[fs::path(file).parent_path().string()];
        group.files.push_back(file);
        group.root = input;
        group.joined = true;
      } else {
        groups_.push_back({{file}, input, false});
      }
    }
    for (auto& [path, group] : joined) groups_.push_back(std::move(group));
  }
}

std::vector<std::string> TextSource::files() const {
  std::vector<std::string> all;
  for (const Group& group : groups_) all.insert(all.end(), group.files.begin(), group.files.end());
  return all;
}

std::optional<RawDocument> TextSource::next() {
  if (lines_.is_open()) {
    if (auto document = next_line()) return document;
  }
  if (reading_ != nullptr) return next_piece();
  while (next_group_ < groups_.size()) {
    const Group& group = groups_[next_group_++];
    if (is_json_lines(group.files.front())) {
      lines_path_ = group.files.front();
      line_ = 0;
      lines_.open(lines_path_, std::ios::binary);
      MOBA_CHECK(lines_.good(), "{}: cannot be opened", lines_path_);
      if (auto document = next_line()) return document;
      continue;
    }
    reading_ = &group;
    next_file_ = 0;
    begun_ = false;
    return next_piece();
  }
  return std::nullopt;
}

// The rest of the document being read, or a piece of it.
RawDocument TextSource::next_piece() {
  RawDocument document;
  document.origin = reading_->joined ? fs::path(reading_->files.front()).parent_path().string() : reading_->files.front();
  document.first = !begun_;
  size_t cut = std::string::npos;
  for (size_t from = piece_bytes_; cut == std::string::npos;) {
    if (piece_bytes_ > 0) cut = find_safe_cut(buffer_, from);
    from = std::max(from, buffer_.size());  // up to here there is none
    if (cut == std::string::npos && !read_more()) break;
  }
  document.last = cut == std::string::npos;
  begun_ = true;
  if (document.last) {
    document.text = std::exchange(buffer_, {});
    reading_ = nullptr;
    return document;
  }
  document.text = buffer_.substr(0, cut);
  buffer_.erase(0, cut);
  return document;
}

// Appends more of the document to the buffer; false at its end.
bool TextSource::read_more() {
  while (file_offset_ == file_size_) {
    if (next_file_ > 0 && reading_->joined && !buffer_.ends_with('\n')) buffer_ += '\n';
    if (next_file_ == reading_->files.size()) {
      file_ = File();
      file_offset_ = file_size_ = 0;
      return false;
    }
    const std::string& path = reading_->files[next_file_++];
    std::error_code error;
    file_size_ = static_cast<int64_t>(fs::file_size(path, error));
    MOBA_CHECK(!error, "{}: not a regular file", path);
    file_ = File(path, O_RDONLY);
    file_offset_ = 0;
    if (reading_->joined) buffer_ += "==> " + fs::relative(path, reading_->root).string() + " <==\n";
  }
  const int64_t left = file_size_ - file_offset_, bytes = piece_bytes_ == 0 ? left : std::min(left, static_cast<int64_t>(piece_bytes_));
  const size_t before = buffer_.size();
  buffer_.resize(before + static_cast<size_t>(bytes));
  file_.read_at(file_offset_, buffer_.data() + before, static_cast<size_t>(bytes));
  file_offset_ += bytes;
  bytes_read_ += bytes;
  return true;
}

// The next line that is not blank; closes the file at its end.
std::optional<RawDocument> TextSource::next_line() {
  RawDocument document;
  document.json = true;
  while (std::getline(lines_, document.text)) {
    ++line_;
    bytes_read_ += static_cast<int64_t>(document.text.size()) + 1;
    if (document.text.find_first_not_of(" \t\r") == std::string::npos) continue;
    document.origin = lines_path_ + ":" + std::to_string(line_);
    return document;
  }
  if (lines_.bad()) throw Error(lines_path_ + ": cannot be read", ExitCode::io);
  lines_.close();
  lines_.clear();
  return std::nullopt;
}

std::string parse_text_line(const std::string& json_line) {
  const auto line = nlohmann::json::parse(json_line);
  MOBA_CHECK(line.is_object() && line.contains("text") && line.at("text").is_string(), "needs a string field \"text\"");
  return line.at("text").get<std::string>();
}

}  // namespace moba
