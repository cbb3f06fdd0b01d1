#include "statestore/byte_coding.h"

namespace anabranch {
namespace {

template <typename T>
void AppendLittleEndian(T value, std::string& bytes) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T FromLittleEndian(absl::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= T{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return value;
}

}  // namespace

void ByteWriter::Fixed32(uint32_t value) { AppendLittleEndian(value, bytes_); }
void ByteWriter::Fixed64(uint64_t value) { AppendLittleEndian(value, bytes_); }

void ByteWriter::Varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) Byte(static_cast<uint8_t>(value | 0x80));
  Byte(static_cast<uint8_t>(value));
}

void ByteWriter::Signed(int64_t value) {
  Varint((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

void ByteWriter::String(absl::string_view value) {
  Varint(value.size());
  bytes_.append(value.data(), value.size());
}

absl::string_view ByteReader::Take(uint64_t count) {
  if (!ok_ || count > rest_.size()) {
    ok_ = false;
    return {};
  }
  const absl::string_view taken = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return taken;
}

uint8_t ByteReader::Byte() { return FromLittleEndian<uint8_t>(Take(1)); }
uint32_t ByteReader::Fixed32() { return FromLittleEndian<uint32_t>(Take(4)); }
uint64_t ByteReader::Fixed64() { return FromLittleEndian<uint64_t>(Take(8)); }

// Only the shortest form is accepted: one value has one encoding.
uint64_t ByteReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = Byte();
    if (!ok_) return 0;
    if (shift == 63 && byte > 1) break;
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift > 0) break;
      return value;
    }
  }
  ok_ = false;
  return 0;
}

int64_t ByteReader::Signed() {
  const uint64_t value = Varint();
  return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

absl::string_view ByteReader::String() { return Take(Varint()); }

uint64_t ByteReader::Count(uint64_t item_bytes) {
  const uint64_t count = Varint();
  if (!ok_ || count > rest_.size() / item_bytes) {
    ok_ = false;
    return 0;
  }
  return count;
}

std::string BigEndian64(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (56 - 8 * i));
  return bytes;
}

uint64_t FromBigEndian64(absl::string_view eight_bytes) {
  uint64_t value = 0;
  for (char byte : eight_bytes) value = (value << 8) | static_cast<uint8_t>(byte);
  return value;
}

}  // namespace anabranch
