#include "runtime/state_table.h"

#include <openssl/evp.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "xxhash.h"

namespace anabranch {
namespace {

const char* KindName(const StateSegment& segment) {
  if (segment.layer == kLastLogitsLayer) return "last logits";
  switch (segment.kind) {
    case StateKind::kWindow:
      return "window";
    case StateKind::kRecurrent:
      return "recurrent";
    case StateKind::kCumulative:
      return "cumulative";
    case StateKind::kKeys:
      return "keys";
    case StateKind::kValues:
      return "values";
  }
  return "unknown";
}

}  // namespace

std::string SegmentName(const StateSegment& segment) {
  if (segment.layer == kLastLogitsLayer) return KindName(segment);
  return absl::StrCat("layer ", segment.layer, " ", KindName(segment));
}

uint64_t SegmentChecksum(absl::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

absl::StatusOr<std::string> BlockHash(absl::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("SHA-256 is not available");
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}

std::vector<StateSegment> SegmentTable(const StateLayout& layout, int32_t vocab) {
  std::vector<StateSegment> table;
  uint64_t offset = 0;
  const auto add = [&](StateSegment segment) {
    segment.bytes = StateDTypeBytes(segment.dtype);
    for (int64_t dim : segment.shape) segment.bytes *= dim;
    segment.offset = offset;
    offset += segment.bytes;
    table.push_back(std::move(segment));
  };
  for (const StateEntry& entry : layout.entries) {
    if (entry.paged()) continue;
    StateSegment segment;
    segment.layer = entry.layer;
    segment.kind = entry.kind;
    segment.dtype = entry.stored_dtype;
    segment.shape = entry.shape;
    add(std::move(segment));
  }
  if (vocab > 0) {
    StateSegment segment;
    segment.layer = kLastLogitsLayer;
    segment.dtype = StateDType::kFloat32;
    segment.shape = {vocab};
    add(std::move(segment));
  }
  return table;
}

}  // namespace anabranch
