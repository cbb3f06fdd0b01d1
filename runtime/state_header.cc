// The header's bytes; docs/STATE_FORMAT.md has the table. Order of checks when parsing: magic,
// version, length, checksum, then each field within its limit, then what the fields mean together.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/int8_state.h"
#include "runtime/state_image.h"
#include "runtime/state_table.h"
#include "runtime/tensor_codec.h"
#include "statestore/base/status_macros.h"
#include "xxhash.h"

namespace anabranch {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr absl::string_view kMagic("ABSTATE\0", 8);
constexpr size_t kPrefixBytes = 16;  // magic, version, header length
constexpr size_t kChecksumBytes = 8;
constexpr size_t kHashBytes = 32;
// Fixed bytes of one segment (without its dims) and of one KV block reference.
constexpr size_t kSegmentBytes = 4 + 1 + 1 + 2 + 8 + 8 + 8;
constexpr size_t kBlockBytes = kHashBytes + 4 + 8;
constexpr uint32_t kWithInnerSum = 2, kWithCodec = 3, kWithPacked = 4, kWithInt8 = 5;  // versions
constexpr uint32_t kMaxLossyRestores = uint32_t{1} << 31;

// Far above any model, far below what could hurt.
constexpr size_t kMaxStringBytes = 256;
constexpr uint32_t kContentCodecs = 3;  // exact, near, compact
constexpr uint32_t kMaxSegments = 1 << 16;
constexpr uint32_t kMaxRank = 8;
constexpr uint32_t kMaxBlocks = 1 << 22;
constexpr uint32_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxTokens = int64_t{kMaxBlocks} * kKvPageTokens;
constexpr uint32_t kMaxInnerSum = 1 << 16;
constexpr uint64_t kMaxPayloadBytes = uint64_t{1} << 40;
constexpr uint64_t kMaxBlockBytes = uint64_t{1} << 32;

template <typename T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(std::string& out, absl::string_view value) {
  Put(out, static_cast<uint16_t>(value.size()));
  out.append(value.data(), value.size());
}

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("state header is damaged: ", what));
}

// Reads the span front to back; nothing is read or allocated beyond it.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : rest_(bytes) {}

  size_t remaining() const { return rest_.size(); }

  template <typename T>
  absl::Status Read(T& value) {
    if (rest_.size() < sizeof(T)) return Damaged("it ends inside a field");
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return absl::OkStatus();
  }

  absl::Status ReadBytes(size_t count, absl::string_view& value) {
    if (rest_.size() < count) return Damaged("it ends inside a field");
    value = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return absl::OkStatus();
  }

  absl::Status ReadString(const char* name, std::string& value) {
    uint16_t size = 0;
    ANABRANCH_RETURN_IF_ERROR(Read(size));
    if (size > kMaxStringBytes) return Damaged(absl::StrCat(name, " is too long"));
    absl::string_view bytes;
    ANABRANCH_RETURN_IF_ERROR(ReadBytes(size, bytes));
    value = std::string(bytes);
    return absl::OkStatus();
  }

 private:
  absl::string_view rest_;
};

// The payload's kinds; keys and values are in blocks.
bool IsSegmentKind(uint8_t kind) { return kind <= static_cast<uint8_t>(StateKind::kCumulative); }
bool IsDType(uint8_t dtype, uint32_t version) {
  const StateDType last = version >= kWithInt8 ? StateDType::kInt8 : StateDType::kFloat64;
  return dtype <= static_cast<uint8_t>(last);
}

// Whether a tensor of `plain` bytes can take segment.bytes in the segment's form.
bool FitsEncoding(const StateSegment& segment, uint64_t plain) {
  if (segment.encoding == StateEncoding::kPlain) return segment.bytes == plain;
  if (segment.dtype != StateDType::kFloat32) return false;
  const auto count = static_cast<int64_t>(plain / sizeof(float));
  if (segment.encoding == StateEncoding::kGroups16) return segment.bytes == GroupsBytes(count);
  if (segment.encoding == StateEncoding::kPacked8) {
    return segment.bytes == PackedBytes(count, CutOf(segment));
  }
  return segment.bytes > 0 && segment.bytes <= MatricesBytesLimit(count);
}

// A measured error: how it was written is how it is read.
absl::Status ReadError(Reader& reader, float& error) {
  ANABRANCH_RETURN_IF_ERROR(reader.Read(error));
  if (std::isfinite(error) && !std::signbit(error)) return absl::OkStatus();
  return Damaged("an error is out of range");
}

// From version 3 on.
absl::Status ReadEncoding(Reader& reader, uint32_t version, StateSegment& segment) {
  uint8_t encoding = 0;
  ANABRANCH_RETURN_IF_ERROR(reader.Read(encoding));
  const StateEncoding last =
      version >= kWithPacked ? StateEncoding::kPacked8 : StateEncoding::kMatrices8;
  if (encoding > static_cast<uint8_t>(last)) {
    return Damaged("a segment's encoding is unknown");
  }
  segment.encoding = static_cast<StateEncoding>(encoding);
  return ReadError(reader, segment.error);
}

// From version 3 on.
absl::Status ReadOrigin(Reader& reader, StateHeader& header) {
  StateOrigin& origin = header.origin;
  uint32_t codec = 0;
  ANABRANCH_RETURN_IF_ERROR(ReadError(reader, header.kv_error));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(origin.lossy_restores));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(codec));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(origin.restored_at));
  if (origin.lossy_restores > kMaxLossyRestores || codec >= static_cast<uint32_t>(kContentCodecs) ||
      origin.restored_at < 0 || origin.restored_at > header.token_count) {
    return Damaged("what it went on from is out of range");
  }
  origin.restored_codec = static_cast<StateCodec>(codec);
  const bool lossy = origin.restored_codec != StateCodec::kExact;
  if (lossy != (origin.lossy_restores > 0) || (!lossy && origin.restored_at != 0)) {
    return Damaged("what it went on from contradicts itself");
  }
  return absl::OkStatus();
}

// What version 3 is for.
bool NeedsCodecFields(const StateHeader& header) {
  return header.codec != StateCodec::kExact || header.origin != StateOrigin();
}
// What version 4 is for.
bool HasPacked(const StateHeader& header) {
  return std::any_of(
      header.segments.begin(), header.segments.end(),
      [](const StateSegment& segment) { return segment.encoding == StateEncoding::kPacked8; });
}

// What version 5 is for.
bool HasInt8(const StateHeader& header) {
  return std::any_of(
      header.segments.begin(), header.segments.end(),
      [](const StateSegment& segment) { return segment.dtype == StateDType::kInt8; });
}

// The first version that has all that a header says.
uint32_t VersionOf(const StateHeader& header) {
  if (HasInt8(header)) return kWithInt8;
  if (HasPacked(header)) return kWithPacked;
  if (NeedsCodecFields(header)) return kWithCodec;
  return header.inner_sum.empty() ? 1 : kWithInnerSum;
}

absl::Status CheckCodec(const StateHeader& header) {
  if (header.format_version > VersionOf(header)) {
    return Damaged("its version says more than it does");
  }
  if (header.codec != StateCodec::kExact) return absl::OkStatus();
  for (const StateSegment& segment : header.segments) {
    if (segment.encoding != StateEncoding::kPlain) return Damaged("an exact state is encoded");
  }
  return absl::OkStatus();
}

// Reads the dims and checks that shape, dtype and form give the segment's bytes, and that an int8
// tensor can have scales.
absl::Status ReadShape(Reader& reader, uint16_t rank, StateSegment& segment) {
  if (rank == 0 || rank > kMaxRank) return Damaged("a segment's rank is out of range");
  uint64_t bytes = StateDTypeBytes(segment.dtype);
  for (uint16_t i = 0; i < rank; ++i) {
    int64_t dim = 0;
    ANABRANCH_RETURN_IF_ERROR(reader.Read(dim));
    if (dim <= 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes) ||
        bytes > kMaxPayloadBytes) {
      return Damaged("a segment's shape is out of range");
    }
    segment.shape.push_back(dim);
  }
  if (segment.dtype == StateDType::kInt8) {
    if (segment.shape.back() % kernels::kInt8Group != 0) {
      return Damaged("rows of int8 are not whole groups");
    }
    bytes = TensorBytes(segment.dtype, static_cast<int64_t>(bytes));
  }
  if (!FitsEncoding(segment, bytes)) return Damaged("a segment's shape and bytes differ");
  return absl::OkStatus();
}

absl::StatusOr<StateSegment> ReadSegment(Reader& reader, uint32_t version) {
  StateSegment segment;
  uint8_t kind = 0, dtype = 0;
  uint16_t rank = 0;
  ANABRANCH_RETURN_IF_ERROR(reader.Read(segment.layer));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(kind));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(dtype));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(rank));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(segment.offset));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(segment.bytes));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(segment.checksum));
  if (version >= kWithCodec) {
    ANABRANCH_RETURN_IF_ERROR(ReadEncoding(reader, version, segment));
  }
  if (segment.layer < kLastLogitsLayer) return Damaged("a segment's layer is out of range");
  if (!IsSegmentKind(kind) || !IsDType(dtype, version)) {
    return Damaged("a segment's kind or dtype is unknown");
  }
  segment.kind = static_cast<StateKind>(kind);
  segment.dtype = static_cast<StateDType>(dtype);
  ANABRANCH_RETURN_IF_ERROR(ReadShape(reader, rank, segment));
  return segment;
}

// The count is checked against the bytes that are left before room is made for it.
absl::Status ReadCount(Reader& reader, uint32_t limit, size_t item_bytes, uint32_t& count) {
  ANABRANCH_RETURN_IF_ERROR(reader.Read(count));
  if (count > limit || count > reader.remaining() / item_bytes) {
    return Damaged("a count is larger than the header");
  }
  return absl::OkStatus();
}

absl::Status ReadSegments(Reader& reader, StateHeader& header) {
  uint32_t count = 0;
  ANABRANCH_RETURN_IF_ERROR(ReadCount(reader, kMaxSegments, kSegmentBytes + 8, count));
  header.segments.reserve(count);
  uint64_t end = 0;
  for (uint32_t i = 0; i < count; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(StateSegment segment, ReadSegment(reader, header.format_version));
    if (segment.offset != end) return Damaged("the segments leave a hole or overlap");
    end += segment.bytes;  // both at most about 2^40
    if (end > kMaxPayloadBytes) return Damaged("the payload is too large");
    header.segments.push_back(std::move(segment));
  }
  return absl::OkStatus();
}

absl::Status ReadBlocks(Reader& reader, StateHeader& header) {
  uint32_t count = 0;
  ANABRANCH_RETURN_IF_ERROR(ReadCount(reader, kMaxBlocks, kBlockBytes, count));
  header.kv_blocks.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    KvBlockRef block;
    absl::string_view hash;
    ANABRANCH_RETURN_IF_ERROR(reader.ReadBytes(kHashBytes, hash));
    ANABRANCH_RETURN_IF_ERROR(reader.Read(block.tokens));
    ANABRANCH_RETURN_IF_ERROR(reader.Read(block.bytes));
    block.hash = absl::BytesToHexString(hash);
    if (block.bytes == 0 || block.bytes > kMaxBlockBytes) {
      return Damaged("the size of a block of keys and values is out of range");
    }
    header.kv_blocks.push_back(std::move(block));
  }
  return absl::OkStatus();
}

// From version 2 on; in version 3 it may be empty.
absl::Status ReadInnerSum(Reader& reader, StateHeader& header) {
  uint32_t count = 0;
  ANABRANCH_RETURN_IF_ERROR(ReadCount(reader, kMaxInnerSum, sizeof(float), count));
  if (count == 0 && header.format_version < kWithCodec) return Damaged("the inner sum is empty");
  header.inner_sum.resize(count);
  for (float& value : header.inner_sum) {
    ANABRANCH_RETURN_IF_ERROR(reader.Read(value));
    if (!std::isfinite(value)) return Damaged("the inner sum is not finite");
  }
  return absl::OkStatus();
}

absl::Status CheckLastLogits(const StateHeader& header) {
  for (size_t i = 0; i < header.segments.size(); ++i) {
    const StateSegment& segment = header.segments[i];
    if (segment.layer != kLastLogitsLayer) continue;
    const bool valid = header.vocab > 0 && i + 1 == header.segments.size() &&
                       segment.kind == StateKind::kRecurrent &&
                       segment.dtype == StateDType::kFloat32 &&
                       segment.shape == std::vector<int64_t>{header.vocab};
    if (!valid) return Damaged("the segment of the last logits does not fit");
    return absl::OkStatus();
  }
  if (header.vocab != 0) return Damaged("the segment of the last logits is missing");
  return absl::OkStatus();
}

absl::Status CheckBlocks(const StateHeader& header) {
  if (header.kv_blocks.empty()) return absl::OkStatus();
  int64_t left = header.token_count;
  for (const KvBlockRef& block : header.kv_blocks) {
    if (block.tokens != std::min<int64_t>(left, kKvPageTokens) || block.tokens < 1) {
      return Damaged("the blocks of keys and values do not cover the tokens");
    }
    left -= block.tokens;
  }
  if (left != 0) return Damaged("the blocks of keys and values do not cover the tokens");
  return absl::OkStatus();
}

// Magic, version, length and checksum; what is between prefix and checksum on success.
absl::StatusOr<absl::string_view> CheckFrame(absl::string_view bytes) {
  if (bytes.size() < kPrefixBytes + kChecksumBytes) return Damaged("it is too short");
  if (bytes.substr(0, kMagic.size()) != kMagic) return Damaged("it does not start as a state");
  uint32_t version = 0, length = 0;
  std::memcpy(&version, bytes.data() + kMagic.size(), sizeof(version));
  std::memcpy(&length, bytes.data() + kMagic.size() + sizeof(version), sizeof(length));
  if (version < 1 || version > kStateFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("state format version ", version,
                                                      " is not supported; this build reads 1 to ",
                                                      kStateFormatVersion));
  }
  if (length != bytes.size()) {
    return Damaged(absl::StrCat("it says ", length, " bytes and has ", bytes.size()));
  }
  const absl::string_view covered = bytes.substr(0, bytes.size() - kChecksumBytes);
  uint64_t checksum = 0;
  std::memcpy(&checksum, covered.data() + covered.size(), sizeof(checksum));
  if (XXH3_64bits(covered.data(), covered.size()) != checksum) {
    return Damaged("its checksum does not match");
  }
  return covered.substr(kPrefixBytes);
}

}  // namespace

std::string SerializeStateHeader(const StateHeader& header) {
  std::string out(kMagic);
  const uint32_t version = VersionOf(header);
  const bool codec_fields = version >= kWithCodec;
  Put(out, version);
  Put(out, uint32_t{0});  // length, set below
  PutString(out, header.fingerprint);
  PutString(out, header.numerics_profile);
  Put(out, header.token_count);
  Put(out, static_cast<uint32_t>(header.codec));
  Put(out, header.vocab);
  Put(out, static_cast<uint32_t>(header.segments.size()));
  for (const StateSegment& segment : header.segments) {
    Put(out, segment.layer);
    Put(out, static_cast<uint8_t>(segment.kind));
    Put(out, static_cast<uint8_t>(segment.dtype));
    Put(out, static_cast<uint16_t>(segment.shape.size()));
    Put(out, segment.offset);
    Put(out, segment.bytes);
    Put(out, segment.checksum);
    if (codec_fields) {
      Put(out, static_cast<uint8_t>(segment.encoding));
      Put(out, segment.error);
    }
    for (int64_t dim : segment.shape) Put(out, dim);
  }
  Put(out, static_cast<uint32_t>(header.kv_blocks.size()));
  for (const KvBlockRef& block : header.kv_blocks) {
    std::string hash = absl::HexStringToBytes(block.hash);
    hash.resize(kHashBytes);
    out += hash;
    Put(out, block.tokens);
    Put(out, block.bytes);
  }
  if (codec_fields) {
    Put(out, header.kv_error);
    Put(out, header.origin.lossy_restores);
    Put(out, static_cast<uint32_t>(header.origin.restored_codec));
    Put(out, header.origin.restored_at);
  }
  if (version >= kWithInnerSum) {
    Put(out, static_cast<uint32_t>(header.inner_sum.size()));
    for (float value : header.inner_sum) Put(out, value);
  }
  const uint32_t length = out.size() + kChecksumBytes;
  std::memcpy(out.data() + kMagic.size() + sizeof(uint32_t), &length, sizeof(length));
  Put(out, uint64_t{XXH3_64bits(out.data(), out.size())});
  return out;
}

absl::StatusOr<StateHeader> ParseStateHeader(absl::string_view bytes) {
  ANABRANCH_ASSIGN_OR_RETURN(const absl::string_view body, CheckFrame(bytes));
  Reader reader(body);
  StateHeader header;
  std::memcpy(&header.format_version, bytes.data() + kMagic.size(), sizeof(uint32_t));
  uint32_t codec = 0;
  ANABRANCH_RETURN_IF_ERROR(reader.ReadString("the fingerprint", header.fingerprint));
  ANABRANCH_RETURN_IF_ERROR(reader.ReadString("the numerics profile", header.numerics_profile));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(header.token_count));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(codec));
  ANABRANCH_RETURN_IF_ERROR(reader.Read(header.vocab));
  if (header.token_count < 0 || header.token_count > kMaxTokens) {
    return Damaged("the token count is out of range");
  }
  const bool known = header.format_version < kWithCodec ? codec == 0 : codec < kContentCodecs;
  if (!known) return Damaged("the codec is unknown");
  header.codec = static_cast<StateCodec>(codec);
  if (header.vocab < 0 || header.vocab > static_cast<int32_t>(kMaxVocab)) {
    return Damaged("the vocabulary size is out of range");
  }
  ANABRANCH_RETURN_IF_ERROR(ReadSegments(reader, header));
  ANABRANCH_RETURN_IF_ERROR(ReadBlocks(reader, header));
  if (header.format_version >= kWithCodec) {
    ANABRANCH_RETURN_IF_ERROR(ReadOrigin(reader, header));
    ANABRANCH_RETURN_IF_ERROR(CheckCodec(header));
  }
  if (header.format_version >= kWithInnerSum) {
    ANABRANCH_RETURN_IF_ERROR(ReadInnerSum(reader, header));
  }
  if (reader.remaining() != 0) return Damaged("it has bytes after the last field");
  ANABRANCH_RETURN_IF_ERROR(CheckLastLogits(header));
  ANABRANCH_RETURN_IF_ERROR(CheckBlocks(header));
  return header;
}

}  // namespace anabranch
