#include "statestore/record_codec.h"

#include <xxhash.h>

#include <cmath>
#include <limits>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/payload_hasher.h"

namespace anabranch {
namespace {

// One per record type; the number is on disk.
enum class Kind : uint8_t {
  kState = 1,
  kRef = 2,
  kSession = 3,
  kLogBounds = 4,
  kTokens = 5,
  kAnswer = 6,
  kBlob = 7,
  kNumber = 8,
  kBytes = 9,
  kUse = 10,
  kPayloadPart = 11,
};
constexpr uint8_t kVersion = 1;
constexpr size_t kHeaderBytes = 2, kChecksumBytes = 8;
constexpr uint64_t kMaxLossyRestores = uint64_t{1} << 31;

uint64_t SealChecksum(absl::string_view key, absl::string_view sealed) {
  return XXH3_64bits_withSeed(sealed.data(), sealed.size(), XXH3_64bits(key.data(), key.size()));
}

ByteWriter Begin(Kind kind) {
  ByteWriter writer;
  writer.Byte(static_cast<uint8_t>(kind));
  writer.Byte(kVersion);
  return writer;
}

std::string Seal(absl::string_view key, ByteWriter writer) {
  std::string sealed = std::move(writer).Take();
  ByteWriter checksum;
  checksum.Fixed64(SealChecksum(key, sealed));
  sealed += std::move(checksum).Take();
  return sealed;
}

absl::StatusOr<absl::string_view> Unseal(absl::string_view key, Kind kind,
                                         absl::string_view value) {
  if (value.size() < kHeaderBytes + kChecksumBytes) {
    return absl::DataLossError("the record is shorter than its frame");
  }
  const absl::string_view sealed = value.substr(0, value.size() - kChecksumBytes);
  ByteReader checksum(value.substr(sealed.size()));
  if (checksum.Fixed64() != SealChecksum(key, sealed)) {
    return absl::DataLossError("the record's checksum does not match");
  }
  if (static_cast<uint8_t>(sealed[0]) != static_cast<uint8_t>(kind)) {
    return absl::DataLossError("the record is of another kind");
  }
  const int version = static_cast<uint8_t>(sealed[1]);
  if (version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the record has version ", version, "; this build reads version ", int{kVersion}));
  }
  return sealed.substr(kHeaderBytes);
}

absl::Status Malformed(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the ", what, " record is malformed"));
}

// The limits of int64 stand for the infinite past and future.
void WriteTime(absl::Time time, ByteWriter& writer) { writer.Signed(absl::ToUnixNanos(time)); }

absl::Time ReadTime(ByteReader& reader) {
  const int64_t nanos = reader.Signed();
  if (nanos == std::numeric_limits<int64_t>::max()) return absl::InfiniteFuture();
  if (nanos == std::numeric_limits<int64_t>::min()) return absl::InfinitePast();
  return absl::FromUnixNanos(nanos);
}

void WriteLabels(const Labels& labels, ByteWriter& writer) {
  writer.Varint(labels.size());
  for (const auto& [key, value] : labels) {
    writer.String(key);
    writer.String(value);
  }
}

Labels ReadLabels(ByteReader& reader) {
  Labels labels;
  for (uint64_t left = reader.Count(2); left > 0 && reader.ok(); --left) {
    const absl::string_view key = reader.String();
    // Sorted, as they were written: one value has one encoding.
    if (!labels.empty() && labels.rbegin()->first >= key) reader.Fail();
    labels.emplace_hint(labels.end(), key, reader.String());
  }
  return labels;
}

void WriteStrings(const std::vector<std::string>& strings, ByteWriter& writer) {
  writer.Varint(strings.size());
  for (const std::string& string : strings) writer.String(string);
}

std::vector<std::string> ReadStrings(ByteReader& reader) {
  std::vector<std::string> strings;
  for (uint64_t left = reader.Count(1); left > 0 && reader.ok(); --left) {
    strings.emplace_back(reader.String());
  }
  return strings;
}

void WriteTokens(absl::Span<const int32_t> tokens, ByteWriter& writer) {
  writer.Varint(tokens.size());
  for (int32_t token : tokens) writer.Fixed32(static_cast<uint32_t>(token));
}

std::vector<int32_t> ReadTokens(ByteReader& reader) {
  std::vector<int32_t> tokens(reader.Count(sizeof(int32_t)));
  for (int32_t& token : tokens) token = static_cast<int32_t>(reader.Fixed32());
  return tokens;
}

// Whether the record says more about its content than that it is exact.
bool HasEncoding(const StateRecord& record) {
  return record.codec != StateCodec::kExact || record.keep_codec || record.exact_bytes != 0 ||
         record.codec_error != 0 || record.lossy_restores != 0;
}

// Bit 0: pinned; bit 1: thinned; bit 2: how the content is encoded follows at the end; bit 3: the
// size of the payload's parts, after that; bits 4 to 7: why it was captured.
uint8_t Flags(const StateRecord& record) {
  return static_cast<uint8_t>(
      (record.pinned ? 1 : 0) | (record.thinned ? 2 : 0) | (HasEncoding(record) ? 4 : 0) |
      (record.payload_part_bytes != 0 ? 8 : 0) | static_cast<uint8_t>(record.kind) << 4);
}

void ReadParts(ByteReader& reader, StateRecord& record) {
  record.payload_part_bytes = reader.Varint();
  if (record.payload_part_bytes == 0 || record.payload_bytes <= record.payload_part_bytes ||
      (record.payload_bytes - 1) / record.payload_part_bytes >= kMaxPayloadParts) {
    reader.Fail();
  }
}

// Codec in bits 0 to 6, bit 7: it was chosen.
void WriteEncoding(const StateRecord& record, ByteWriter& writer) {
  if (!HasEncoding(record)) return;
  writer.Byte(static_cast<uint8_t>(record.codec) | (record.keep_codec ? 0x80 : 0));
  writer.Varint(record.exact_bytes);
  writer.Fixed32(absl::bit_cast<uint32_t>(record.codec_error));
  writer.Varint(record.lossy_restores);
}

void ReadEncoding(ByteReader& reader, StateRecord& record) {
  const uint8_t codec = reader.Byte();
  record.codec = static_cast<StateCodec>(codec & 0x7f);
  record.keep_codec = (codec & 0x80) != 0;
  record.exact_bytes = reader.Varint();
  record.codec_error = absl::bit_cast<float>(reader.Fixed32());
  const uint64_t restores = reader.Varint();
  record.lossy_restores = static_cast<uint32_t>(restores);
  const bool meaningful = record.codec <= StateCodec::kArchive && record.codec_error >= 0 &&
                          std::isfinite(record.codec_error) && restores <= kMaxLossyRestores &&
                          !std::signbit(record.codec_error);
  if (!meaningful || !HasEncoding(record)) reader.Fail();
}

bool ReadFlags(uint8_t flags, StateRecord& record) {
  record.pinned = (flags & 1) != 0;
  record.thinned = (flags & 2) != 0;
  record.kind = static_cast<CaptureReason>(flags >> 4);
  return record.kind <= CaptureReason::kMark;
}

// Bits 3 and 4: 1 more than the codec; 0: not chosen.
uint8_t CodecFlags(const std::optional<StateCodec>& codec) {
  return codec.has_value() ? static_cast<uint8_t>((static_cast<uint8_t>(*codec) + 1) << 3) : 0;
}

constexpr uint8_t kHasBase = 0x80;  // of a session: its base follows

void WriteBase(const SessionBase& base, ByteWriter& writer) {
  writer.String(base.core);
  writer.String(base.state);
  writer.Signed(base.position);
  writer.Varint(base.aux.size());
  for (const AuxState& aux : base.aux) {
    writer.String(aux.name);
    writer.String(aux.state_id);
    writer.Fixed64(absl::bit_cast<uint64_t>(aux.weight));
  }
}

void ReadBase(ByteReader& reader, SessionBase& base) {
  base.core = std::string(reader.String());
  base.state = std::string(reader.String());
  base.position = reader.Signed();
  for (uint64_t left = reader.Count(10); left > 0 && reader.ok(); --left) {
    AuxState aux;
    aux.name = std::string(reader.String());
    aux.state_id = std::string(reader.String());
    aux.weight = absl::bit_cast<double>(reader.Fixed64());
    if (!(aux.weight > 0) || !std::isfinite(aux.weight)) reader.Fail();
    base.aux.push_back(std::move(aux));
  }
  if (base.position < 0 || base == SessionBase()) reader.Fail();
}

// What a session's record has only if it is not the default, at its end.
void WritePolicy(const SessionRecord& session, ByteWriter& writer) {
  const CheckpointPolicy& policy = session.checkpoints;
  const bool has_base = !(session.base == SessionBase());
  if (policy == CheckpointPolicy() && session.thin_from == 0 && !has_base) return;
  writer.Byte(static_cast<uint8_t>((policy.turn_ends ? 1 : 0) | (policy.keep_grid ? 2 : 0) |
                                   (policy.thin_turn_ends ? 4 : 0) | (has_base ? kHasBase : 0) |
                                   CodecFlags(policy.codec)));
  writer.Signed(policy.every);
  writer.Signed(policy.max_states);
  writer.Signed(policy.max_bytes);
  writer.Signed(session.thin_from);
  if (has_base) WriteBase(session.base, writer);
}

void ReadPolicy(ByteReader& reader, SessionRecord& session) {
  if (reader.AtEnd()) return;
  CheckpointPolicy& policy = session.checkpoints;
  const uint8_t flags = reader.Byte();
  policy.turn_ends = (flags & 1) != 0;
  policy.keep_grid = (flags & 2) != 0;
  policy.thin_turn_ends = (flags & 4) != 0;
  const int codec = (flags & ~kHasBase) >> 3;
  if (codec != 0) policy.codec = static_cast<StateCodec>(codec - 1);
  policy.every = reader.Signed();
  policy.max_states = reader.Signed();
  policy.max_bytes = reader.Signed();
  session.thin_from = reader.Signed();
  const bool has_base = (flags & kHasBase) != 0;
  if (has_base) ReadBase(reader, session.base);
  const bool meaningful = (flags & ~kHasBase) < 32 && policy.every >= -1 &&
                          policy.max_states >= 0 && policy.max_bytes >= 0 && session.thin_from >= 0;
  const bool is_default = policy == CheckpointPolicy() && session.thin_from == 0 && !has_base;
  if (!meaningful || is_default) reader.Fail();
}

}  // namespace

uint64_t PayloadChecksum(absl::string_view payload) {
  return XXH3_64bits(payload.data(), payload.size());
}

PayloadPartFrame FramePayloadPart(absl::string_view key, uint64_t payload_checksum,
                                  absl::string_view bytes) {
  ByteWriter before = Begin(Kind::kPayloadPart), behind;
  before.Fixed64(payload_checksum);
  PayloadHasher checksum(XXH3_64bits(key.data(), key.size()));
  checksum.Add(before.bytes());
  checksum.Add(bytes);
  behind.Fixed64(checksum.Sum());
  return {std::move(before).Take(), std::move(behind).Take()};
}

absl::StatusOr<absl::string_view> DecodePayloadPart(absl::string_view key,
                                                    uint64_t payload_checksum,
                                                    absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kPayloadPart, value));
  ByteReader of(body.substr(0, kChecksumBytes));
  if (of.Fixed64() != payload_checksum) return absl::DataLossError("it is of another payload");
  if (!of.ok()) return Malformed("payload part");
  return body.substr(kChecksumBytes);
}

std::string EncodeState(absl::string_view key, const StoredState& state) {
  const StateRecord& record = state.record;
  ByteWriter writer = Begin(Kind::kState);
  writer.String(record.fingerprint);
  writer.String(record.numerics_profile);
  WriteStrings(record.parents, writer);
  writer.Byte(static_cast<uint8_t>(record.operation));
  writer.String(record.operation_params);
  writer.Signed(record.token_count);
  WriteTokens(record.span_tokens, writer);
  writer.String(record.header);
  writer.Varint(record.payload_bytes);
  writer.Fixed64(record.payload_checksum);
  WriteStrings(record.blob_hashes, writer);
  writer.Varint(record.blob_bytes);
  WriteTime(record.created, writer);
  WriteLabels(record.labels, writer);
  WriteTime(record.expires, writer);
  writer.Byte(Flags(record));
  writer.Fixed64(record.etag);
  writer.String(state.prefix_hash);
  WriteEncoding(record, writer);
  if (record.payload_part_bytes != 0) writer.Varint(record.payload_part_bytes);
  return Seal(key, std::move(writer));
}

absl::StatusOr<StoredState> DecodeState(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kState, value));
  ByteReader reader(body);
  StoredState state;
  StateRecord& record = state.record;
  record.fingerprint = std::string(reader.String());
  record.numerics_profile = std::string(reader.String());
  record.parents = ReadStrings(reader);
  const uint8_t operation = reader.Byte();
  record.operation = static_cast<StateOperation>(operation);
  record.operation_params = std::string(reader.String());
  record.token_count = reader.Signed();
  record.span_tokens = ReadTokens(reader);
  record.header = std::string(reader.String());
  record.payload_bytes = reader.Varint();
  record.payload_checksum = reader.Fixed64();
  record.blob_hashes = ReadStrings(reader);
  record.blob_bytes = reader.Varint();
  record.created = ReadTime(reader);
  record.labels = ReadLabels(reader);
  record.expires = ReadTime(reader);
  const uint8_t flags = reader.Byte();
  const bool known_flags = ReadFlags(flags, record);
  record.etag = reader.Fixed64();
  state.prefix_hash = std::string(reader.String());
  if ((flags & 4) != 0) ReadEncoding(reader, record);
  if ((flags & 8) != 0) ReadParts(reader, record);
  const bool meaningful = operation <= static_cast<uint8_t>(StateOperation::kSwap) && known_flags &&
                          record.token_count >= 0 &&
                          (state.prefix_hash.empty() || state.prefix_hash.size() == 16);
  if (!reader.AtEnd() || !meaningful) return Malformed("state");
  return state;
}

std::string EncodeRef(absl::string_view key, const RefRecord& ref) {
  ByteWriter writer = Begin(Kind::kRef);
  writer.String(ref.state_id);
  WriteTime(ref.updated, writer);
  writer.Fixed64(ref.etag);
  return Seal(key, std::move(writer));
}

absl::StatusOr<RefRecord> DecodeRef(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kRef, value));
  ByteReader reader(body);
  RefRecord ref;
  ref.state_id = std::string(reader.String());
  ref.updated = ReadTime(reader);
  ref.etag = reader.Fixed64();
  if (!reader.AtEnd()) return Malformed("ref");
  return ref;
}

std::string EncodeSession(absl::string_view key, const SessionRecord& session) {
  ByteWriter writer = Begin(Kind::kSession);
  writer.String(session.ref);
  writer.String(session.head_state);
  writer.Signed(session.head_position);
  writer.String(session.fingerprint);
  WriteLabels(session.labels, writer);
  WriteTime(session.created, writer);
  WriteTime(session.updated, writer);
  WritePolicy(session, writer);
  return Seal(key, std::move(writer));
}

absl::StatusOr<SessionRecord> DecodeSession(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kSession, value));
  ByteReader reader(body);
  SessionRecord session;
  session.ref = std::string(reader.String());
  session.head_state = std::string(reader.String());
  session.head_position = reader.Signed();
  session.fingerprint = std::string(reader.String());
  session.labels = ReadLabels(reader);
  session.created = ReadTime(reader);
  session.updated = ReadTime(reader);
  ReadPolicy(reader, session);
  if (!reader.AtEnd() || session.head_position < 0) return Malformed("session");
  return session;
}

std::string EncodeLogBounds(absl::string_view key, const LogBounds& bounds) {
  ByteWriter writer = Begin(Kind::kLogBounds);
  writer.Signed(bounds.start);
  writer.Signed(bounds.end);
  return Seal(key, std::move(writer));
}

absl::StatusOr<LogBounds> DecodeLogBounds(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kLogBounds, value));
  ByteReader reader(body);
  LogBounds bounds;
  bounds.start = reader.Signed();
  bounds.end = reader.Signed();
  if (!reader.AtEnd() || bounds.start < 0 || bounds.end < bounds.start) return Malformed("log");
  return bounds;
}

std::string EncodeTokens(absl::string_view key, absl::Span<const int32_t> tokens) {
  ByteWriter writer = Begin(Kind::kTokens);
  WriteTokens(tokens, writer);
  return Seal(key, std::move(writer));
}

absl::StatusOr<std::vector<int32_t>> DecodeTokens(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kTokens, value));
  ByteReader reader(body);
  std::vector<int32_t> tokens = ReadTokens(reader);
  if (!reader.AtEnd()) return Malformed("token");
  return tokens;
}

std::string EncodeAnswer(absl::string_view key, const StoredAnswer& answer) {
  ByteWriter writer = Begin(Kind::kAnswer);
  WriteTime(answer.answered, writer);
  writer.String(answer.answer);
  return Seal(key, std::move(writer));
}

absl::StatusOr<StoredAnswer> DecodeAnswer(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kAnswer, value));
  ByteReader reader(body);
  StoredAnswer answer;
  answer.answered = ReadTime(reader);
  answer.answer = std::string(reader.String());
  if (!reader.AtEnd()) return Malformed("answer");
  return answer;
}

std::string EncodeBlob(absl::string_view key, absl::string_view blob) {
  ByteWriter writer = Begin(Kind::kBlob);
  writer.Raw(blob);
  return Seal(key, std::move(writer));
}

absl::StatusOr<std::string> DecodeBlob(absl::string_view key, std::string value) {
  ANABRANCH_RETURN_IF_ERROR(Unseal(key, Kind::kBlob, value).status());
  value.resize(value.size() - kChecksumBytes);
  value.erase(0, kHeaderBytes);
  return value;
}

std::string EncodeUse(absl::string_view key, const TenantUse& use) {
  ByteWriter writer = Begin(Kind::kUse);
  writer.Signed(use.states);
  writer.Signed(use.archived);
  writer.Signed(use.sessions);
  writer.Signed(use.refs);
  writer.Signed(use.bytes);
  return Seal(key, std::move(writer));
}

absl::StatusOr<TenantUse> DecodeUse(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kUse, value));
  ByteReader reader(body);
  TenantUse use;
  use.states = reader.Signed();
  use.archived = reader.Signed();
  use.sessions = reader.Signed();
  use.refs = reader.Signed();
  use.bytes = reader.Signed();
  if (!reader.AtEnd()) return Malformed("use");
  return use;
}

std::string EncodeNumber(absl::string_view key, uint64_t number) {
  ByteWriter writer = Begin(Kind::kNumber);
  writer.Fixed64(number);
  return Seal(key, std::move(writer));
}

absl::StatusOr<uint64_t> DecodeNumber(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kNumber, value));
  ByteReader reader(body);
  const uint64_t number = reader.Fixed64();
  if (!reader.AtEnd()) return Malformed("number");
  return number;
}

std::string EncodeBytes(absl::string_view key, absl::string_view bytes) {
  ByteWriter writer = Begin(Kind::kBytes);
  writer.Raw(bytes);
  return Seal(key, std::move(writer));
}

absl::StatusOr<std::string> DecodeBytes(absl::string_view key, absl::string_view value) {
  ANABRANCH_ASSIGN_OR_RETURN(absl::string_view body, Unseal(key, Kind::kBytes, value));
  return std::string(body);
}

}  // namespace anabranch
