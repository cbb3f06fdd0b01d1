#include "statestore/bundle_format.h"

#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/key_schema.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

constexpr absl::string_view kMagic("ABBUNDL\0", 8);
constexpr uint32_t kMaxHeaderBytes = 1 << 16;

std::string Checksum(absl::string_view bytes, uint64_t seed) {
  ByteWriter writer;
  writer.Fixed64(XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed));
  return std::move(writer).Take();
}

// Takes the checksum off the end of `bytes`.
bool TakeChecksum(absl::string_view& bytes, uint64_t seed) {
  if (bytes.size() < kBundleChecksumBytes) return false;
  const absl::string_view sum = bytes.substr(bytes.size() - kBundleChecksumBytes);
  bytes.remove_suffix(kBundleChecksumBytes);
  return sum == Checksum(bytes, seed);
}

std::string ItemBody(const BundleItem& item) {
  ByteWriter writer;
  writer.Byte(static_cast<uint8_t>(item.kind));
  writer.String(item.name);
  writer.Varint(item.record_bytes);
  writer.Varint(item.content_bytes);
  return std::move(writer).Take();
}

std::string HeaderBody(const BundleHeader& header) {
  ByteWriter writer;
  writer.String(header.tenant);
  writer.String(header.fingerprint);
  writer.String(header.numerics_profile);
  writer.String(header.state_id);
  writer.String(header.bundle_id);
  writer.Fixed64(header.size_bytes);
  writer.Varint(header.states);
  writer.Varint(header.whole_states);
  writer.Varint(header.blobs);
  writer.Varint(header.refs);
  return std::move(writer).Take();
}

}  // namespace

std::string EncodeBundleItem(const BundleItem& item, uint64_t offset) {
  const std::string body = ItemBody(item);
  ByteWriter length;
  length.Fixed32(static_cast<uint32_t>(body.size() + kBundleChecksumBytes));
  return absl::StrCat(std::move(length).Take(), body, Checksum(body, offset));
}

absl::StatusOr<BundleItem> ParseBundleItem(absl::string_view head, uint64_t offset) {
  if (!TakeChecksum(head, offset)) {
    return absl::InvalidArgumentError("the checksum of an item's head does not match");
  }
  ByteReader reader(head);
  BundleItem item;
  const uint8_t kind = reader.Byte();
  item.kind = static_cast<BundleItemKind>(kind);
  item.name = std::string(reader.String());
  item.record_bytes = reader.Varint();
  item.content_bytes = reader.Varint();
  if (!reader.AtEnd() || kind < 1 || kind > 3) {
    return absl::InvalidArgumentError("an item's head is malformed");
  }
  if (item.record_bytes > kMaxBundleRecordBytes || item.content_bytes > kMaxBundleContentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("an item claims ", item.record_bytes, " bytes of record and ",
                     item.content_bytes, " of content; at most ", kMaxBundleRecordBytes, " and ",
                     kMaxBundleContentBytes, " are allowed"));
  }
  return item;
}

uint64_t BundleItemBytes(const BundleItem& item) {
  const uint64_t data = item.record_bytes + item.content_bytes;
  const uint64_t chunks = (data + kBundleChunkBytes - 1) / kBundleChunkBytes;
  return 4 + ItemBody(item).size() + kBundleChecksumBytes + data + chunks * kBundleChecksumBytes;
}

std::string EncodeBundleHeader(const BundleHeader& header) {
  const std::string body = HeaderBody(header);
  ByteWriter writer;
  writer.Raw(kMagic);
  writer.Fixed32(kBundleFormatVersion);
  writer.Fixed32(static_cast<uint32_t>(kBundlePreambleBytes + body.size() + kBundleChecksumBytes));
  writer.Raw(body);
  const std::string bytes = std::move(writer).Take();
  return absl::StrCat(bytes, Checksum(bytes, 0));
}

absl::StatusOr<uint32_t> ParseBundlePreamble(absl::string_view preamble) {
  if (preamble.size() != kBundlePreambleBytes || preamble.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError("this is no bundle: it does not begin with ABBUNDL");
  }
  ByteReader reader(preamble.substr(kMagic.size()));
  const uint32_t version = reader.Fixed32();
  const uint32_t length = reader.Fixed32();
  if (version != kBundleFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the bundle has format version ", version,
                                                      "; this build reads version ",
                                                      kBundleFormatVersion));
  }
  if (length < kBundlePreambleBytes + kBundleChecksumBytes || length > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the header claims ", length, " bytes; at most ",
                                                   kMaxHeaderBytes, " are allowed"));
  }
  return length;
}

absl::StatusOr<BundleHeader> ParseBundleHeader(absl::string_view header) {
  ANABRANCH_RETURN_IF_ERROR(ParseBundlePreamble(header.substr(0, kBundlePreambleBytes)).status());
  if (!TakeChecksum(header, 0)) {
    return absl::InvalidArgumentError("the header's checksum does not match");
  }
  ByteReader reader(header.substr(kBundlePreambleBytes));
  BundleHeader parsed;
  parsed.tenant = std::string(reader.String());
  parsed.fingerprint = std::string(reader.String());
  parsed.numerics_profile = std::string(reader.String());
  parsed.state_id = std::string(reader.String());
  parsed.bundle_id = std::string(reader.String());
  parsed.size_bytes = reader.Fixed64();
  parsed.states = reader.Varint();
  parsed.whole_states = reader.Varint();
  parsed.blobs = reader.Varint();
  parsed.refs = reader.Varint();
  if (!reader.AtEnd() || parsed.bundle_id.size() != Sha256::kBytes) {
    return absl::InvalidArgumentError("the header is malformed");
  }
  return parsed;
}

std::string BundleChunkChecksum(absl::string_view chunk, uint64_t offset) {
  return Checksum(chunk, offset);
}

// The etag counts changes in one library, the prefix hash is keyed by one library's secret.
std::string EncodeBundleRecord(const StateRecord& record) {
  StoredState state{record, ""};
  state.record.etag = 0;
  state.record.payload_part_bytes = 0;
  return EncodeState(NamedKey(record.tenant, record.id), state);
}

absl::StatusOr<StateRecord> DecodeBundleRecord(absl::string_view tenant, const BundleItem& item,
                                               absl::string_view bytes) {
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state, DecodeState(NamedKey(tenant, item.name), bytes));
  if (state.record.etag != 0 || state.record.payload_part_bytes != 0 ||
      !state.prefix_hash.empty()) {
    return absl::InvalidArgumentError("a record has fields of one library");
  }
  state.record.tenant = std::string(tenant);
  state.record.id = item.name;
  return std::move(state.record);
}

BundleIdHasher::BundleIdHasher(const BundleHeader& header) {
  ByteWriter writer;
  writer.String("anabranch bundle id 1");
  writer.String(header.tenant);
  writer.String(header.fingerprint);
  writer.String(header.numerics_profile);
  writer.String(header.state_id);
  hash_.Add(std::move(writer).Take());
}

void BundleIdHasher::Add(const BundleItem& item, absl::string_view record) {
  ByteWriter writer;
  writer.String(ItemBody(item));
  hash_.Add(std::move(writer).Take());
  hash_.Add(record);
}

}  // namespace anabranch
