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

// Rows of a matrix without heads: neighbouring channels of Mamba-1.
constexpr int64_t kChannelRows = 64;

}  // namespace

int64_t CountOf(const StateSegment& segment) {
  int64_t count = 1;
  for (int64_t dim : segment.shape) count *= dim;
  return count;
}

MatrixCut CutOf(const StateSegment& segment) {
  const size_t rank = segment.shape.size();
  return {rank >= 3 ? segment.shape[rank - 2] : kChannelRows, segment.shape.back()};
}

StateEncoding EncodingFor(StateCodec codec, const StateSegment& segment) {
  if (codec == StateCodec::kExact || segment.dtype != StateDType::kFloat32) {
    return StateEncoding::kPlain;
  }
  const bool recurrent = segment.kind == StateKind::kRecurrent && segment.layer != kLastLogitsLayer;
  return codec == StateCodec::kCompact && recurrent ? StateEncoding::kMatrices8
                                                    : StateEncoding::kGroups16;
}

uint64_t BytesIn(StateEncoding encoding, const StateSegment& segment) {
  const int64_t count = CountOf(segment);
  if (encoding == StateEncoding::kGroups16) return GroupsBytes(count);
  if (encoding == StateEncoding::kPacked8) return PackedBytes(count, CutOf(segment));
  return TensorBytes(segment.dtype, count);
}

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
    segment.bytes = TensorBytes(segment.dtype, CountOf(segment));
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
