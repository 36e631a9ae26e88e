#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "src/interop/safetensors.h"
#include "src/interop/safetensors_dtype.h"

namespace moba {
namespace {

using nlohmann::json;

// The format's own limit; it keeps a damaged length from asking for all memory.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kPieceElements = int64_t{1} << 20;

// A read-only mapping of a whole file.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      const std::string reason = fd < 0 ? std::strerror(errno) : "not a regular file";
      if (fd >= 0) ::close(fd);
      throw Error(fmt::format("cannot open {}: {}", path, reason), ExitCode::corrupt_input);
    }
    size_ = static_cast<size_t>(info.st_size);
    void* mapped = size_ > 0 ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
    ::close(fd);
    if (mapped == MAP_FAILED) throw Error(fmt::format("cannot map {}: {}", path, std::strerror(errno)), ExitCode::io);
    data_ = static_cast<const char*>(mapped);
  }
  ~MappedFile() {
    if (data_) ::munmap(const_cast<char*>(data_), size_);
  }
  MappedFile(const MappedFile&) = delete;
  const char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

float half_to_float(uint16_t h) {
  const float sign = (h & 0x8000u) ? -1.0f : 1.0f;
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  if (exponent == 31) return mantissa ? std::nanf("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

struct Located {
  FileDType file;
  Shape shape;
  uint64_t begin = 0, end = 0;  // in the data section
};

// Parses and checks a header; every complaint ends up in one message form.
class HeaderParser {
 public:
  HeaderParser(const std::string& path, const MappedFile& file) : path_(path), file_(file) {}

  void parse() {
    if (file_.size() < sizeof(uint64_t)) fail("the file has {} bytes, fewer than the header's length field", file_.size());
    uint64_t length = 0;
    std::memcpy(&length, file_.data(), sizeof length);
    if (length > kMaxHeaderBytes || length > file_.size() - sizeof length)
      fail("the header claims {} bytes, the file has {} (truncated?)", length, file_.size());
    data_begin = sizeof length + static_cast<size_t>(length);
    const json header = parse_json(file_.data() + sizeof length, file_.data() + data_begin);
    if (!header.is_object()) fail("the header is not a JSON object");
    for (const auto& [name, value] : header.items()) name == "__metadata__" ? add_metadata(value) : add_tensor(name, value);
    check_layout();
  }

  size_t data_begin = 0;
  std::map<std::string, Located> tensors;
  std::map<std::string, std::string> metadata;

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(fmt::format("{} is damaged: {}", path_, fmt::format(format, std::forward<Args>(args)...)), ExitCode::corrupt_input);
  }

  // A JSON object with the same name twice would keep only one of them, so that is an error here.
  json parse_json(const char* begin, const char* end) const {
    std::set<std::string> names;
    std::string repeated;
    const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& parsed) {
      if (event == json::parse_event_t::key && depth == 1 && !names.insert(parsed.get<std::string>()).second) repeated = parsed;
      return true;
    };
    try {
      json header = json::parse(begin, end, watch);
      if (!repeated.empty()) fail("tensor {} is listed twice", repeated);
      return header;
    } catch (const json::exception& error) {
      fail("the header is not JSON ({})", std::string(error.what()).substr(0, 200));
    }
  }

  void add_metadata(const json& value) {
    if (!value.is_object()) fail("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ entry {} is not a string", key);
      metadata[key] = text.get<std::string>();
    }
  }

  // Non-negative integers only: 1.5, -1 and 1e30 are refused.
  std::vector<uint64_t> unsigned_list(const std::string& name, const json& value, const char* field) const {
    std::vector<uint64_t> list;
    if (!value.is_object() || !value.contains(field) || !value[field].is_array()) fail("tensor {} has no list {}", name, field);
    for (const json& item : value[field]) {
      if (!item.is_number_unsigned()) fail("tensor {}: {} holds {}", name, field, item.dump());
      list.push_back(item.get<uint64_t>());
    }
    return list;
  }

  void add_tensor(const std::string& name, const json& value) {
    Located tensor;
    if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string()) fail("tensor {} has no dtype", name);
    const auto dtype = file_dtype(value["dtype"].get<std::string>());
    if (!dtype) fail("tensor {} has dtype {}, which is not one of F16 BF16 F32 F64 I32 I64 U8 U16 U32 BOOL", name, value["dtype"].dump());
    tensor.file = *dtype;
    uint64_t bytes = dtype->bytes;
    for (uint64_t size : unsigned_list(name, value, "shape")) {
      if (__builtin_mul_overflow(bytes, size, &bytes) || bytes > INT64_MAX || size > INT64_MAX)
        fail("tensor {}: its shape overflows", name);
      tensor.shape.push_back(static_cast<int64_t>(size));
    }
    const auto offsets = unsigned_list(name, value, "data_offsets");
    if (offsets.size() != 2) fail("tensor {} has {} data_offsets instead of 2", name, offsets.size());
    tensor.begin = offsets[0];
    tensor.end = offsets[1];
    const uint64_t data_bytes = file_.size() - data_begin;
    if (tensor.begin > tensor.end || tensor.end > data_bytes)
      fail("tensor {} lies at [{}, {}), the data has {} bytes (truncated?)", name, tensor.begin, tensor.end, data_bytes);
    if (tensor.end - tensor.begin != bytes)
      fail("tensor {} of shape {} needs {} bytes, its offsets give {}", name, to_string(tensor.shape), bytes, tensor.end - tensor.begin);
    tensors.emplace(name, std::move(tensor));
  }

  // Back to back from 0 to the end: no overlap, no hole, nothing behind.
  void check_layout() const {
    std::vector<std::pair<uint64_t, std::string>> order;
    for (const auto& [name, tensor] : tensors) order.emplace_back(tensor.begin, name);
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
      return std::tuple(a.first, tensors.at(a.second).end) < std::tuple(b.first, tensors.at(b.second).end);
    });
    uint64_t at = 0;
    for (const auto& [begin, name] : order) {
      if (begin != at) fail("tensor {} starts at {}, but the one before ends at {} (overlap or hole)", name, begin, at);
      at = tensors.at(name).end;
    }
    if (at != file_.size() - data_begin) fail("the tensors end at {}, the data has {} bytes", at, file_.size() - data_begin);
  }

  const std::string& path_;
  const MappedFile& file_;
};

// CPU tensor of `count` elements as they lie at `bytes` (halves widened).
Tensor piece_from(const FileDType& file, const char* bytes, int64_t count) {
  const Tensor piece = Tensor::empty({count}, file.dtype);
  if (!file.half) {
    std::memcpy(piece.raw(), bytes, static_cast<size_t>(piece.nbytes()));
    return piece;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t h;
    std::memcpy(&h, bytes + 2 * i, sizeof h);
    piece.data<float>()[i] = half_to_float(h);
  }
  return piece;
}

}  // namespace

struct SafetensorsReader::Impl {
  explicit Impl(const std::string& p) : path(p), file(p), header(path, file) {
    header.parse();
    for (const auto& [name, tensor] : header.tensors) entries[name] = {tensor.file.dtype, tensor.shape};
  }
  const Located& locate(const std::string& name) const {
    const auto found = header.tensors.find(name);
    if (found == header.tensors.end()) throw Error(fmt::format("{} has no tensor {}", path, name), ExitCode::corrupt_input);
    return found->second;
  }
  std::string path;
  MappedFile file;
  HeaderParser header;
  std::map<std::string, TensorEntry> entries;
};

SafetensorsReader::SafetensorsReader(const std::string& path) : impl_(std::make_unique<Impl>(path)) {}
SafetensorsReader::~SafetensorsReader() = default;
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
const std::string& SafetensorsReader::path() const { return impl_->path; }
const std::map<std::string, TensorEntry>& SafetensorsReader::entries() const { return impl_->entries; }
const std::map<std::string, std::string>& SafetensorsReader::metadata() const { return impl_->header.metadata; }

std::string_view SafetensorsReader::bytes(const std::string& name) const {
  const Located& tensor = impl_->locate(name);
  return {impl_->file.data() + impl_->header.data_begin + tensor.begin, static_cast<size_t>(tensor.end - tensor.begin)};
}

void SafetensorsReader::read(const std::string& name, const Tensor& into) const {
  const Located& tensor = impl_->locate(name);
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    throw Error(fmt::format("{}: tensor {} is {}, expected {}", impl_->path, name, found, expected), ExitCode::corrupt_input);
  };
  if (tensor.shape != into.shape()) refuse(to_string(into.shape()), to_string(tensor.shape));
  if (tensor.file.dtype != into.dtype() && !(is_float(tensor.file.dtype) && is_float(into.dtype())))
    refuse(dtype_name(into.dtype()), dtype_name(tensor.file.dtype));
  const int64_t count = into.numel();
  if (count == 0) return;
  const char* data = bytes(name).data();
  if (tensor.file.dtype == into.dtype() && !tensor.file.half && into.device() == Device{}) {
    std::memcpy(into.raw(), data, static_cast<size_t>(into.nbytes()));
    return;
  }
  const Tensor flat = into.reshape({count});
  for (int64_t begin = 0; begin < count; begin += kPieceElements) {
    const int64_t end = std::min(begin + kPieceElements, count);
    flat.rows(begin, end).copy_from(piece_from(tensor.file, data + begin * static_cast<int64_t>(tensor.file.bytes), end - begin));
  }
}

}  // namespace moba
