#include "src/data/byte_level.h"

#include <array>
#include <cstdint>

namespace moba {
namespace {

// Stand-ins lie in U+0021 .. U+0143, so every one takes at most two bytes of UTF-8.
constexpr int kCodePoints = 0x144;

struct Alphabet {
  std::array<uint16_t, 256> of_byte{};
  std::array<int16_t, kCodePoints> of_code_point{};

  Alphabet() {
    of_code_point.fill(-1);
    uint16_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const auto code_point = printable ? static_cast<uint16_t>(byte) : next++;
      of_byte[byte] = code_point;
      of_code_point[code_point] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string byte_level_encode(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char byte : bytes) {
    const uint16_t c = alphabet().of_byte[static_cast<uint8_t>(byte)];
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xC0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return text;
}

bool byte_level_decode(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < text.size();) {
    unsigned c = static_cast<uint8_t>(text[i++]);
    if (c >= 0x80) {
      if ((c & 0xE0) != 0xC0 || i == text.size()) return false;
      const unsigned low = static_cast<uint8_t>(text[i++]);
      if ((low & 0xC0) != 0x80) return false;
      c = (c & 0x1F) << 6 | (low & 0x3F);
    }
    if (c >= kCodePoints || alphabet().of_code_point[c] < 0) return false;
    bytes += static_cast<char>(alphabet().of_code_point[c]);
  }
  return true;
}

}  // namespace moba
