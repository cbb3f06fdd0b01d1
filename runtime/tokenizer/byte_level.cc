#include "runtime/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "runtime/tokenizer/utf8.h"

namespace anabranch::tokenizer {
namespace {

constexpr char32_t kAlphabetEnd = 256 + 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Alphabet {
  std::array<std::string, 256> characters;  // UTF-8 by byte
  std::array<int16_t, kAlphabetEnd> bytes;  // byte by code point, -1: not in the alphabet

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t c = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
      AppendCodePoint(c, &characters[byte]);
      bytes[c] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

void AppendByteLevel(absl::string_view bytes, std::string* out) {
  const Alphabet& alphabet = GetAlphabet();
  for (const char byte : bytes) out->append(alphabet.characters[static_cast<uint8_t>(byte)]);
}

std::string ByteLevelTokenBytes(absl::string_view token) {
  const Alphabet& alphabet = GetAlphabet();
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = NextCodePoint(token, &pos);
    if (c >= kAlphabetEnd || alphabet.bytes[c] < 0) return std::string(token);
    bytes.push_back(static_cast<char>(alphabet.bytes[c]));
  }
  return bytes;
}

}  // namespace anabranch::tokenizer
