#include "statestore/key_schema.h"

#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "statestore/byte_coding.h"

namespace anabranch {
namespace {

constexpr absl::string_view kEnd("\0", 1);
constexpr absl::string_view kTimes("\0T", 2);
constexpr absl::string_view kExpiries("\0E", 2);
constexpr size_t kHashBytes = 16;

// Signed numbers as unsigned ones in the same order.
uint64_t Ordered(int64_t value) { return static_cast<uint64_t>(value) ^ (uint64_t{1} << 63); }
int64_t FromOrdered(uint64_t value) { return static_cast<int64_t>(value ^ (uint64_t{1} << 63)); }

absl::Status BadKey(absl::string_view family, absl::string_view key) {
  return absl::DataLossError(
      absl::StrCat("malformed key in ", family, ": ", absl::CHexEscape(key.substr(0, 120))));
}

}  // namespace

const char* FamilyName(Family family) {
  static constexpr const char* kNames[kFamilies] = {"default",  "states",   "payloads", "blobs",
                                                    "refs",     "sessions", "log",      "edges",
                                                    "timeline", "prefixes", "answers"};
  return kNames[static_cast<int>(family)];
}

std::string TenantPrefix(absl::string_view tenant) { return absl::StrCat(tenant, kEnd); }

std::string NamedKey(absl::string_view tenant, absl::string_view name) {
  return absl::StrCat(tenant, kEnd, name);
}

absl::string_view NameOfNamedKey(absl::string_view tenant, absl::string_view key) {
  key.remove_prefix(std::min(tenant.size() + 1, key.size()));
  return key;
}

std::string PayloadPartPrefix(absl::string_view tenant, absl::string_view state) {
  return absl::StrCat(tenant, kEnd, state, kEnd);
}

std::string PayloadPartKey(absl::string_view tenant, absl::string_view state, uint64_t index) {
  return absl::StrCat(PayloadPartPrefix(tenant, state), BigEndian64(index));
}

std::string LogBoundsKey(absl::string_view tenant, absl::string_view session) {
  return absl::StrCat(tenant, kEnd, session, kEnd);
}

std::string LogChunkPrefix(absl::string_view tenant, absl::string_view session) {
  return absl::StrCat(tenant, kEnd, session, kEnd, "@");
}

std::string LogChunkKey(absl::string_view tenant, absl::string_view session, int64_t position) {
  return absl::StrCat(LogChunkPrefix(tenant, session), BigEndian64(Ordered(position)));
}

absl::StatusOr<int64_t> PositionOfLogChunkKey(absl::string_view prefix, absl::string_view key) {
  if (!absl::StartsWith(key, prefix) || key.size() != prefix.size() + 8) return BadKey("log", key);
  return FromOrdered(FromBigEndian64(key.substr(prefix.size())));
}

std::string EdgePrefix(absl::string_view tenant, Edge edge, absl::string_view used) {
  return absl::StrCat(tenant, kEnd, std::string(1, static_cast<char>(edge)), used, kEnd);
}

std::string EdgeKey(absl::string_view tenant, Edge edge, absl::string_view used,
                    absl::string_view user) {
  return absl::StrCat(EdgePrefix(tenant, edge, used), user);
}

bool StateOfKey(Family family, absl::string_view key, absl::string_view* tenant,
                absl::string_view* id) {
  const bool payload = family == Family::kPayloads;
  if (family != Family::kStates && family != Family::kEdges && !payload) return false;
  const size_t end = key.find('\0');
  if (end == absl::string_view::npos) return false;
  *tenant = key.substr(0, end);
  *id = key.substr(end + 1);
  if (payload) *id = id->substr(0, id->find('\0'));
  if (family == Family::kStates || payload) return !id->empty();
  if (id->empty() || id->front() == static_cast<char>(Edge::kBlob) ||
      id->front() == static_cast<char>(Edge::kSpan)) {
    return false;
  }
  id->remove_prefix(1);
  *id = id->substr(0, id->find('\0'));
  return !id->empty();
}

absl::string_view UserOfEdgeKey(absl::string_view edge_prefix, absl::string_view key) {
  key.remove_prefix(std::min(edge_prefix.size(), key.size()));
  return key;
}

std::string TimelineKey(absl::string_view tenant, int64_t created_unix_nanos,
                        absl::string_view state) {
  return absl::StrCat(tenant, kEnd, BigEndian64(Ordered(created_unix_nanos)), state);
}

absl::StatusOr<TimelineEntry> ParseTimelineKey(absl::string_view tenant, absl::string_view key) {
  const absl::string_view rest = NameOfNamedKey(tenant, key);
  if (rest.size() <= 8) return BadKey("timeline", key);
  return TimelineEntry{FromOrdered(FromBigEndian64(rest.substr(0, 8))), rest.substr(8)};
}

std::string ExpiryPrefix() { return std::string(kExpiries); }

std::string ExpiryKey(int64_t unix_nanos, absl::string_view tenant, absl::string_view state) {
  return absl::StrCat(kExpiries, BigEndian64(Ordered(unix_nanos)), tenant, kEnd, state);
}

absl::StatusOr<ExpiryEntry> ParseExpiryKey(absl::string_view key) {
  if (!absl::StartsWith(key, kExpiries) || key.size() < kExpiries.size() + 8) {
    return BadKey("timeline", key);
  }
  const absl::string_view name = key.substr(kExpiries.size() + 8);
  const size_t end = name.find('\0');
  if (end == absl::string_view::npos || end == 0 || end + 1 == name.size()) {
    return BadKey("timeline", key);
  }
  return ExpiryEntry{FromOrdered(FromBigEndian64(key.substr(kExpiries.size(), 8))),
                     name.substr(0, end), name.substr(end + 1)};
}

std::string PrefixScopeKey(absl::string_view tenant, absl::string_view scope) {
  return absl::StrCat(tenant, kEnd, scope);
}

// Lengths are inverted, so that a walk forwards meets the longest prefix first.
std::string PrefixLengthKey(absl::string_view scope_key, int64_t length, absl::string_view hash) {
  return absl::StrCat(scope_key, BigEndian64(~static_cast<uint64_t>(length)), hash);
}

std::string PrefixEntryKey(absl::string_view scope_key, int64_t length, absl::string_view hash,
                           absl::string_view state) {
  return absl::StrCat(PrefixLengthKey(scope_key, length, hash), state);
}

absl::StatusOr<PrefixEntry> ParsePrefixEntryKey(absl::string_view scope_key,
                                                absl::string_view key) {
  if (!absl::StartsWith(key, scope_key)) return BadKey("prefixes", key);
  const absl::string_view rest = key.substr(scope_key.size());
  if (rest.size() <= 8 + kHashBytes) return BadKey("prefixes", key);
  const uint64_t length = ~FromBigEndian64(rest.substr(0, 8));
  if (length > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadKey("prefixes", key);
  }
  return PrefixEntry{static_cast<int64_t>(length), rest.substr(8, kHashBytes),
                     rest.substr(8 + kHashBytes)};
}

std::string AnswerTimePrefix() { return std::string(kTimes); }

std::string AnswerTimeKey(int64_t unix_nanos, absl::string_view answer_key) {
  return absl::StrCat(kTimes, BigEndian64(Ordered(unix_nanos)), answer_key);
}

absl::StatusOr<AnswerTimeEntry> ParseAnswerTimeKey(absl::string_view key) {
  if (!absl::StartsWith(key, kTimes) || key.size() <= kTimes.size() + 8) {
    return BadKey("answers", key);
  }
  return AnswerTimeEntry{FromOrdered(FromBigEndian64(key.substr(kTimes.size(), 8))),
                         key.substr(kTimes.size() + 8)};
}

std::string PrefixEnd(absl::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) ++end.back();
  return end;
}

}  // namespace anabranch
