#include "src/train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "kernels/common/check.h"

namespace moba {
namespace {

std::array<uint32_t, 256> make_crc_table() {
  constexpr uint32_t kPolynomial = 0x82f63b78;  // Castagnoli, reflected
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? kPolynomial : 0);
    table[i] = c;
  }
  return table;
}

// TFRecord stores checksums rotated and offset, so that a checksum of data holding checksums stays sound.
uint32_t masked_crc(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes.data(), bytes.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
std::string little_endian(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
static_assert(std::endian::native == std::endian::little);

// Protocol buffer fields: key = number << 3 | wire type.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  return out + static_cast<char>(value);
}
std::string field_varint(int number, uint64_t value) { return varint(static_cast<uint64_t>(number) << 3) + varint(value); }
std::string field_double(int number, double value) { return varint(static_cast<uint64_t>(number) << 3 | 1) + little_endian(value); }
std::string field_float(int number, float value) { return varint(static_cast<uint64_t>(number) << 3 | 5) + little_endian(value); }
std::string field_bytes(int number, const std::string& value) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(value.size()) + value;
}

double wall_time() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

uint32_t crc32c(const void* data, size_t bytes) {
  static const std::array<uint32_t, 256> table = make_crc_table();
  uint32_t crc = 0xffffffffu;
  const auto* p = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) crc = table[(crc ^ p[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder) {
  std::filesystem::create_directories(folder);
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  // Two starts within a second keep apart by the number at the end.
  const auto seconds = static_cast<int64_t>(wall_time());
  for (int n = 0; path_.empty() || std::filesystem::exists(path_); ++n)
    path_ = fmt::format("{}/events.out.tfevents.{}.{}.{}", folder, seconds, host, n);
  file_ = std::fopen(path_.c_str(), "wbe");
  if (!file_) throw Error(fmt::format("cannot create {}: {}", path_, std::strerror(errno)), ExitCode::io);
  record(field_double(1, wall_time()) + field_bytes(3, "brain.Event:2"));
}

TensorBoardWriter::~TensorBoardWriter() { std::fclose(file_); }

void TensorBoardWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, value] : values) summary += field_bytes(1, field_bytes(1, tag) + field_float(2, static_cast<float>(value)));
  record(field_double(1, wall_time()) + field_varint(2, static_cast<uint64_t>(step)) + field_bytes(5, summary));
}

void TensorBoardWriter::record(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  const std::string bytes = length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() || std::fflush(file_) != 0)
    throw Error(fmt::format("cannot write {}: {}", path_, std::strerror(errno)), ExitCode::io);
}

}  // namespace moba
