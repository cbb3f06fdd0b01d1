// Little-endian fixed integers, LEB128 varints and length-prefixed strings: the alphabet of the
// library's records. ByteReader is bounded: it never reads past its span, never allocates more than
// the span holds, and after the first error every further read fails too, so a parser may check
// once at the end.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace anabranch {

class ByteWriter {
 public:
  void Byte(uint8_t value) { bytes_.push_back(static_cast<char>(value)); }
  void Fixed32(uint32_t value);
  void Fixed64(uint64_t value);
  void Varint(uint64_t value);
  void Signed(int64_t value);  // zigzag varint
  void String(absl::string_view value);
  void Raw(absl::string_view bytes) { bytes_.append(bytes.data(), bytes.size()); }
  void Reserve(size_t bytes) { bytes_.reserve(bytes); }
  absl::string_view bytes() const { return bytes_; }  // what was written so far
  std::string Take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : rest_(bytes) {}

  uint8_t Byte();
  uint32_t Fixed32();
  uint64_t Fixed64();
  uint64_t Varint();
  int64_t Signed();
  absl::string_view String();
  // A count of items that take at least `item_bytes` each: fails if they cannot fit in the rest.
  uint64_t Count(uint64_t item_bytes);

  // For a parser that found what it read to be wrong.
  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }
  // OK and nothing left over.
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  absl::string_view Take(uint64_t count);

  absl::string_view rest_;
  bool ok_ = true;
};

// Big-endian: bytes sort as numbers do. For keys.
std::string BigEndian64(uint64_t value);
uint64_t FromBigEndian64(absl::string_view eight_bytes);

}  // namespace anabranch
