// Every key of the library, built and parsed in this file alone, so that commit, reads, deletion
// and checks agree. docs/LIBRARY_FORMAT.md shows the same as a table.
//
// A tenant's keys start with the tenant and a zero byte. Tenants, names, ids and hashes never hold
// a zero byte (names.h), so a zero byte ends a part and no key is a prefix of another part's keys.
// Numbers are big-endian: keys sort as numbers do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch {

// Column families. The names on disk are in FamilyName().
enum class Family {
  kMeta = 0,  // RocksDB's "default": format, commit_seq, keys
  kStates,    // state id -> record
  kPayloads,  // state id -> payload; state id, index -> part of one
  kBlobs,     // blob hash -> blob
  kRefs,      // ref name -> record
  kSessions,  // session id -> record
  kLog,       // session id -> bounds; session id, position -> tokens
  kEdges,     // who needs what: child, ref, session -> state; state -> blob
  kTimeline,  // creation time, state id
  kPrefixes,  // model, length, prefix hash, state id
  kAnswers,   // request id -> answer; time -> request id
};
inline constexpr int kFamilies = 11;
const char* FamilyName(Family family);

// kMeta.
inline constexpr absl::string_view kFormatVersionKey = "format_version";
inline constexpr absl::string_view kCommitSeqKey = "commit_seq";
inline constexpr absl::string_view kLibraryIdKey = "library_id";
inline constexpr absl::string_view kHashKeyKey = "hash_key";
// Says that the library has books of its use and an index of expiry times.
inline constexpr absl::string_view kRetentionKey = "retention";

// All keys of a tenant in any family but kMeta.
std::string TenantPrefix(absl::string_view tenant);
// kStates, kPayloads, kBlobs, kRefs, kSessions: tenant, name.
std::string NamedKey(absl::string_view tenant, absl::string_view name);
absl::string_view NameOfNamedKey(absl::string_view tenant, absl::string_view key);

// kPayloads: a large payload is in parts, behind the key that it would have as one value.
std::string PayloadPartPrefix(absl::string_view tenant, absl::string_view state);
std::string PayloadPartKey(absl::string_view tenant, absl::string_view state, uint64_t index);

// kLog.
std::string LogBoundsKey(absl::string_view tenant, absl::string_view session);
std::string LogChunkKey(absl::string_view tenant, absl::string_view session, int64_t position);
std::string LogChunkPrefix(absl::string_view tenant, absl::string_view session);
absl::StatusOr<int64_t> PositionOfLogChunkKey(absl::string_view prefix, absl::string_view key);

// kEdges: `user` needs `used`.
enum class Edge : char {
  kChild = 'c',    // state -> a state that has it as a parent
  kRef = 'r',      // state -> a ref that names it
  kSession = 's',  // state -> a session whose head it is
  kBlob = 'b',     // blob -> a state that needs it
  kSpan = 'p',     // start of a span (branch_points.h) -> the state that it ends at
};
std::string EdgeKey(absl::string_view tenant, Edge edge, absl::string_view used,
                    absl::string_view user);
std::string EdgePrefix(absl::string_view tenant, Edge edge, absl::string_view used);
// The state that a change of this key concerns: of kStates the state itself, of kPayloads the one
// that it is of, of kEdges the one that is needed. False for other families and for blobs. `tenant`
// and `id` point into the key.
bool StateOfKey(Family family, absl::string_view key, absl::string_view* tenant,
                absl::string_view* id);
absl::string_view UserOfEdgeKey(absl::string_view edge_prefix, absl::string_view key);

// kTimeline: oldest first. Times before 1970 sort first.
std::string TimelineKey(absl::string_view tenant, int64_t created_unix_nanos,
                        absl::string_view state);
struct TimelineEntry {
  int64_t created_unix_nanos;
  absl::string_view state;
};
absl::StatusOr<TimelineEntry> ParseTimelineKey(absl::string_view tenant, absl::string_view key);

// kTimeline: states by when to look whether they have expired, over all tenants. The keys start
// with a zero byte, which no tenant does.
std::string ExpiryKey(int64_t unix_nanos, absl::string_view tenant, absl::string_view state);
std::string ExpiryPrefix();
struct ExpiryEntry {
  int64_t unix_nanos;
  absl::string_view tenant, state;
};
absl::StatusOr<ExpiryEntry> ParseExpiryKey(absl::string_view key);

// kPrefixes: the longest first. `scope` (16 bytes) stands for model and profile, `hash` (16 bytes)
// for the tokens.
std::string PrefixScopeKey(absl::string_view tenant, absl::string_view scope);
std::string PrefixLengthKey(absl::string_view scope_key, int64_t length, absl::string_view hash);
std::string PrefixEntryKey(absl::string_view scope_key, int64_t length, absl::string_view hash,
                           absl::string_view state);
struct PrefixEntry {
  int64_t length;
  absl::string_view hash;
  absl::string_view state;
};
absl::StatusOr<PrefixEntry> ParsePrefixEntryKey(absl::string_view scope_key, absl::string_view key);

// kAnswers: by tenant and request id, and by time over all tenants, for expiry. The time keys start
// with a zero byte, which no tenant does.
std::string AnswerTimeKey(int64_t unix_nanos, absl::string_view answer_key);
std::string AnswerTimePrefix();
struct AnswerTimeEntry {
  int64_t unix_nanos;
  absl::string_view answer_key;
};
absl::StatusOr<AnswerTimeEntry> ParseAnswerTimeKey(absl::string_view key);

// The smallest key after all that start with `prefix`; empty if there is none.
std::string PrefixEnd(absl::string_view prefix);

}  // namespace anabranch
