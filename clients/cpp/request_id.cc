#include "clients/cpp/request_id.h"

#include <array>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace anabranch {

std::string NewRequestId() {
  // Seeded from the operating system's entropy; ids need to differ, not to be secret.
  thread_local absl::BitGen generator;
  std::array<char, 16> bytes;
  for (char& byte : bytes) byte = static_cast<char>(absl::Uniform<uint8_t>(generator));
  bytes[6] = static_cast<char>((bytes[6] & 0x0f) | 0x40);  // version 4: random
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);  // variant of RFC 4122
  std::string hex = absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
  absl::string_view h = hex;
  return absl::StrCat(h.substr(0, 8), "-", h.substr(8, 4), "-", h.substr(12, 4), "-",
                      h.substr(16, 4), "-", h.substr(20));
}

}  // namespace anabranch
