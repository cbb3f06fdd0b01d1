// Records <-> bytes. Every value but small payloads is sealed: a kind, a version, the body, and an
// XXH3-64 checksum seeded by the value's key, so that damage and values under a wrong key are both
// found. Payloads of one value are raw; their checksum is in the state's record.
//
// Decoders are pure and bounded: any bytes give a value or DATA_LOSS, and they allocate at most a
// small multiple of the input. docs/LIBRARY_FORMAT.md shows the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "statestore/retention.h"
#include "statestore/state_store.h"

namespace anabranch {

// What is kept of a state: the record, and the hash of all tokens from the root (prefix_index.h) so
// that a child's can be continued from it; empty for a merge and below it, which are not what
// reading their tokens gives.
struct StoredState {
  StateRecord record;
  std::string prefix_hash;
};

// Where a session's log starts and ends; the tokens are in chunks between.
struct LogBounds {
  int64_t start = 0, end = 0;
};

struct StoredAnswer {
  absl::Time answered;
  std::string answer;
};

// XXH3-64 of a payload, as StateRecord::payload_checksum has it.
uint64_t PayloadChecksum(absl::string_view payload);

// More parts no payload has: what says so is damaged.
inline constexpr uint64_t kMaxPayloadParts = uint64_t{1} << 24;

// What goes before and behind the bytes of a part of a payload, which are large and not copied. A
// part says which payload it is of, by its checksum: parts of two forms of a state never mix.
struct PayloadPartFrame {
  std::string before, behind;
};
PayloadPartFrame FramePayloadPart(absl::string_view key, uint64_t payload_checksum,
                                  absl::string_view bytes);
// Gives the bytes, which are inside `value`. DATA_LOSS also for a part of another payload.
absl::StatusOr<absl::string_view> DecodePayloadPart(absl::string_view key,
                                                    uint64_t payload_checksum,
                                                    absl::string_view value);

// Tenants, ids and names are in the key and not repeated in the value: the caller sets them.
std::string EncodeState(absl::string_view key, const StoredState& state);
absl::StatusOr<StoredState> DecodeState(absl::string_view key, absl::string_view value);

std::string EncodeRef(absl::string_view key, const RefRecord& ref);
absl::StatusOr<RefRecord> DecodeRef(absl::string_view key, absl::string_view value);

std::string EncodeSession(absl::string_view key, const SessionRecord& session);
absl::StatusOr<SessionRecord> DecodeSession(absl::string_view key, absl::string_view value);

std::string EncodeLogBounds(absl::string_view key, const LogBounds& bounds);
absl::StatusOr<LogBounds> DecodeLogBounds(absl::string_view key, absl::string_view value);

std::string EncodeTokens(absl::string_view key, absl::Span<const int32_t> tokens);
absl::StatusOr<std::vector<int32_t>> DecodeTokens(absl::string_view key, absl::string_view value);

std::string EncodeAnswer(absl::string_view key, const StoredAnswer& answer);
absl::StatusOr<StoredAnswer> DecodeAnswer(absl::string_view key, absl::string_view value);

std::string EncodeBlob(absl::string_view key, absl::string_view blob);
absl::StatusOr<std::string> DecodeBlob(absl::string_view key, std::string value);

// Values of the family meta: what a tenant holds, numbers and byte strings.
std::string EncodeUse(absl::string_view key, const TenantUse& use);
absl::StatusOr<TenantUse> DecodeUse(absl::string_view key, absl::string_view value);
std::string EncodeNumber(absl::string_view key, uint64_t number);
absl::StatusOr<uint64_t> DecodeNumber(absl::string_view key, absl::string_view value);
std::string EncodeBytes(absl::string_view key, absl::string_view bytes);
absl::StatusOr<std::string> DecodeBytes(absl::string_view key, absl::string_view value);

}  // namespace anabranch
