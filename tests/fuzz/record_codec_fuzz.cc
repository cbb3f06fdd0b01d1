// Feeds bytes to every record decoder: as they are, and again with the seal made right, so that the
// checks behind the checksum are reached too. A state that parses must encode to the same bytes.
#include <xxhash.h>

#include <cstdint>
#include <string>

#include "statestore/record_codec.h"

namespace {

constexpr char kKey[] = "tenant.key";

void Check(const std::string& value) {
  using namespace anabranch;
  const auto state = DecodeState(kKey, value);
  if (state.ok() && EncodeState(kKey, *state) != value) __builtin_trap();
  const auto tokens = DecodeTokens(kKey, value);
  if (tokens.ok() && EncodeTokens(kKey, *tokens) != value) __builtin_trap();
  const auto bounds = DecodeLogBounds(kKey, value);
  if (bounds.ok() && (bounds->start < 0 || bounds->end < bounds->start)) __builtin_trap();
  (void)DecodeRef(kKey, value).ok();
  (void)DecodeSession(kKey, value).ok();
  (void)DecodeAnswer(kKey, value).ok();
  (void)DecodeBlob(kKey, value).ok();
  (void)DecodePayloadPart(kKey, 7, value).ok();
  (void)DecodeNumber(kKey, value).ok();
  (void)DecodeBytes(kKey, value).ok();
}

std::string Sealed(const uint8_t* data, size_t size) {
  std::string value(reinterpret_cast<const char*>(data), size);
  const uint64_t seed = XXH3_64bits(kKey, sizeof(kKey) - 1);
  const uint64_t checksum = XXH3_64bits_withSeed(value.data(), value.size(), seed);
  value.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return value;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check(std::string(reinterpret_cast<const char*>(data), size));
  Check(Sealed(data, size));
  return 0;
}
