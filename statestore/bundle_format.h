// The bytes of a bundle: states of one tenant and model as a portable file, docs/BUNDLE_FORMAT.md.
//
//   header, items, 4 zero bytes, SHA-256 of all bytes before it
//
// An item is a blob, a state or a ref: a short head with its name and sizes, then its data (for a
// state its record and its payload) in chunks of 1 MiB, each with a checksum. A bundle is closed:
// the parents of a state and the blobs that it needs come before it, every blob once.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/records.h"
#include "statestore/sha256.h"

namespace anabranch {

inline constexpr uint32_t kBundleFormatVersion = 1;
inline constexpr size_t kBundleChunkBytes = 1 << 20;
inline constexpr size_t kBundleChecksumBytes = 8;
// Magic, version, length of the header.
inline constexpr size_t kBundlePreambleBytes = 16;
// Bytes that an item's head may have after its length.
inline constexpr uint32_t kMaxBundleItemHead = 1024;
// A record holds the tokens of a span, 4 bytes each; of a computed state all of them.
inline constexpr uint64_t kMaxBundleRecordBytes = 1u << 30;
inline constexpr uint64_t kMaxBundleContentBytes = uint64_t{1} << 44;

struct BundleHeader {
  std::string tenant, fingerprint, numerics_profile;
  std::string state_id;   // the state that the bundle is about
  std::string bundle_id;  // 32 bytes: BundleIdHasher over all items
  uint64_t size_bytes = 0;
  uint64_t states = 0, whole_states = 0, blobs = 0, refs = 0;
};

enum class BundleItemKind : uint8_t { kBlob = 1, kState = 2, kRef = 3 };

struct BundleItem {
  BundleItemKind kind = BundleItemKind::kBlob;
  std::string name;           // hash, state id or ref name
  uint64_t record_bytes = 0;  // of a state its record, of a ref the state's id, of a blob none
  uint64_t content_bytes = 0;
};

// Length and head of an item; `offset`: of the item in the bundle.
std::string EncodeBundleItem(const BundleItem& item, uint64_t offset);
// `head`: what follows the length.
absl::StatusOr<BundleItem> ParseBundleItem(absl::string_view head, uint64_t offset);
// Bytes of an item in the bundle, its head and checksums included.
uint64_t BundleItemBytes(const BundleItem& item);

std::string EncodeBundleHeader(const BundleHeader& header);
// Length of the whole header from its first kBundlePreambleBytes. FAILED_PRECONDITION for a newer
// version, INVALID_ARGUMENT for what is no bundle.
absl::StatusOr<uint32_t> ParseBundlePreamble(absl::string_view preamble);
absl::StatusOr<BundleHeader> ParseBundleHeader(absl::string_view header);

// `offset`: of the chunk in the bundle, so that swapped chunks are found.
std::string BundleChunkChecksum(absl::string_view chunk, uint64_t offset);

// A state's record as bundles have it: without what is only of one library. The tenant is the
// header's.
std::string EncodeBundleRecord(const StateRecord& record);
absl::StatusOr<StateRecord> DecodeBundleRecord(absl::string_view tenant, const BundleItem& item,
                                               absl::string_view bytes);

// What a bundle's id says: all items, in order. A payload counts by the checksum in its record.
class BundleIdHasher {
 public:
  explicit BundleIdHasher(const BundleHeader& header);
  void Add(const BundleItem& item, absl::string_view record);
  std::string Finish() { return hash_.Finish(); }

 private:
  Sha256 hash_;
};

}  // namespace anabranch
