// GPT-2's printable stand-ins for bytes: the alphabet of vocabularies in Hugging Face files ("Ġ" for a space).
#pragma once
#include <string>
#include <string_view>

namespace moba {

std::string byte_level_encode(std::string_view bytes);  // bytes -> UTF-8 text of stand-ins
// Inverse; false when a character is not a stand-in.
bool byte_level_decode(std::string_view text, std::string& bytes);

}  // namespace moba
