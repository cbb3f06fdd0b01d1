// Feeds bytes to ParseStateHeader: as they are, and again with magic, version, length and checksum
// made right, so that the checks behind the checksum are reached too. What parses must serialise to
// the same bytes.
#include <cstdint>
#include <cstring>
#include <string>

#include "runtime/state_image.h"
#include "xxhash.h"

namespace {

constexpr size_t kPrefix = 16, kChecksum = 8;

void Check(const std::string& bytes) {
  const auto header = anabranch::ParseStateHeader(bytes);
  if (header.ok() && anabranch::SerializeStateHeader(*header) != bytes) __builtin_trap();
}

std::string Framed(const uint8_t* data, size_t size, uint32_t version) {
  std::string bytes("ABSTATE\0", 8);
  const uint32_t length = kPrefix + size + kChecksum;
  bytes.append(reinterpret_cast<const char*>(&version), 4);
  bytes.append(reinterpret_cast<const char*>(&length), 4);
  bytes.append(reinterpret_cast<const char*>(data), size);
  const uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&checksum), 8);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check(std::string(reinterpret_cast<const char*>(data), size));
  // The newest version differs from the one before in what a segment's form may be.
  Check(Framed(data, size, anabranch::kStateFormatVersion - 2));
  Check(Framed(data, size, anabranch::kStateFormatVersion - 1));
  Check(Framed(data, size, anabranch::kStateFormatVersion));
  return 0;
}
