#include "statestore/garbage.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/disk_use.h"
#include "statestore/library_reads.h"
#include "statestore/tenant_use.h"
#include "statestore/unnamed_payloads.h"

namespace anabranch {
namespace {

constexpr size_t kKeysPerSnapshot = 1000, kKeysPerCommit = 64;
constexpr Family kScanned[] = {Family::kEdges, Family::kTimeline, Family::kPrefixes, Family::kLog};
// Files of values are rewritten while more than this part of their bytes is dead.
constexpr double kDeadPart = 0.2;
constexpr int kMaxRewrites = 12;

struct Parts {
  absl::string_view tenant, rest;
};
Parts Split(absl::string_view key) {
  const size_t end = key.find('\0');
  if (end == absl::string_view::npos) return {};
  return {key.substr(0, end), key.substr(end + 1)};
}

// Whether the state is missing, or what `wrong` says of its record.
template <typename Wrong>
absl::StatusOr<bool> StateIs(const KeyValueReader& reader, absl::string_view tenant,
                             absl::string_view id, Wrong wrong) {
  const absl::StatusOr<StoredState> state = ReadState(reader, tenant, id);
  if (absl::IsNotFound(state.status())) return true;
  if (absl::IsDataLoss(state.status())) return false;
  ANABRANCH_RETURN_IF_ERROR(state.status());
  return wrong(state->record);
}

bool Lists(const std::vector<std::string>& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

absl::StatusOr<bool> IsStaleEdge(const KeyValueReader& reader, absl::string_view key) {
  const auto [tenant, rest] = Split(key);
  if (rest.empty()) return false;
  const auto [used, user] = Split(rest.substr(1));
  switch (static_cast<Edge>(rest.front())) {
    case Edge::kChild:
      return StateIs(reader, tenant, user, [&, used = used](const StateRecord& child) {
        return !Lists(child.parents, used);
      });
    case Edge::kBlob:
      return StateIs(reader, tenant, user, [&, used = used](const StateRecord& state) {
        return !Lists(state.blob_hashes, used);
      });
    case Edge::kSpan:
      return StateIs(reader, tenant, user, [](const StateRecord&) { return false; });
    case Edge::kRef: {
      const absl::StatusOr<RefRecord> ref = ReadRef(reader, tenant, user);
      if (absl::IsNotFound(ref.status())) return true;
      return ref.ok() && ref->state_id != used;
    }
    case Edge::kSession: {
      const absl::StatusOr<SessionRecord> session = ReadSession(reader, tenant, user);
      if (absl::IsNotFound(session.status())) return true;
      return session.ok() && session->head_state != used;
    }
  }
  return false;
}

absl::StatusOr<bool> IsStaleTime(const KeyValueReader& reader, absl::string_view key) {
  if (absl::StartsWith(key, ExpiryPrefix())) return false;  // the sweep drops it in its time
  const absl::string_view tenant = Split(key).tenant;
  const absl::StatusOr<TimelineEntry> entry = ParseTimelineKey(tenant, key);
  if (!entry.ok()) return false;
  return StateIs(reader, tenant, entry->state, [&](const StateRecord& state) {
    return absl::ToUnixNanos(state.created) != entry->created_unix_nanos;
  });
}

absl::StatusOr<bool> IsStalePrefix(const KeyValueReader& reader, absl::string_view key) {
  constexpr size_t kScopeBytes = 16;
  const auto [tenant, rest] = Split(key);
  if (rest.size() <= kScopeBytes) return false;
  const std::string scope = PrefixScopeKey(tenant, rest.substr(0, kScopeBytes));
  const absl::StatusOr<PrefixEntry> entry = ParsePrefixEntryKey(scope, key);
  if (!entry.ok()) return false;
  return StateIs(reader, tenant, entry->state, [&](const StateRecord& state) {
    return !IsWhole(state) || state.token_count != entry->length;
  });
}

absl::StatusOr<bool> IsStaleLog(const KeyValueReader& reader, absl::string_view key) {
  const auto [tenant, rest] = Split(key);
  const absl::string_view session = Split(rest).tenant;
  if (session.empty()) return false;
  const auto record = ReadSession(reader, tenant, session);
  return absl::IsNotFound(record.status());
}

// One run over the library.
class Collector {
 public:
  Collector(Database& database, StateStore& store, const std::string& directory,
            const GarbageOptions& options)
      : database_(database), store_(store), directory_(directory), options_(options) {}

  absl::StatusOr<GarbageReport> Run() {
    report_.start = absl::Now();
    report_.dry_run = options_.dry_run;
    report_.disk_bytes_before = static_cast<int64_t>(BytesUnder(directory_));
    report_.dead_bytes_before = DeadBytes();
    for (const Family family : kScanned) ANABRANCH_RETURN_IF_ERROR(ScanFamily(family));
    ANABRANCH_RETURN_IF_ERROR(ScanPayloads());
    if (!options_.dry_run) {
      ANABRANCH_RETURN_IF_ERROR(Compact());
      ANABRANCH_RETURN_IF_ERROR(Rewrite());
    }
    report_.disk_bytes_after = static_cast<int64_t>(BytesUnder(directory_));
    report_.dead_bytes_after = DeadBytes();
    report_.end = absl::Now();
    ANABRANCH_RETURN_IF_ERROR(Tell("done", 1, 1));
    return report_;
  }

 private:
  // CANCELLED once the caller has had enough.
  absl::Status Tell(const char* phase, int64_t done, int64_t total) {
    if (options_.progress) options_.progress({phase, done, std::max(done, total), report_});
    if (!options_.keep_going || options_.keep_going()) return absl::OkStatus();
    return absl::CancelledError("the garbage collection was stopped; what it did stays done");
  }

  // What compactions have not met yet is counted by the books: bytes in files beyond all that the
  // states take.
  int64_t DeadBytes() const {
    const Database::ValueFiles files = database_.value_files();
    const int64_t beyond = static_cast<int64_t>(files.bytes) - store_.stats().state_bytes;
    return std::max<int64_t>({static_cast<int64_t>(files.dead_bytes), beyond, 0});
  }

  absl::Status ScanFamily(Family family) {
    std::string from;
    do {
      ANABRANCH_ASSIGN_OR_RETURN(std::vector<DropStaleKey> stale, NextStale(family, from));
      ANABRANCH_RETURN_IF_ERROR(DropAndTell(std::move(stale)));
    } while (!from.empty());
    return absl::OkStatus();
  }

  absl::Status ScanPayloads() {
    std::string behind;
    do {
      ANABRANCH_ASSIGN_OR_RETURN(std::vector<DropStaleKey> stale, NextUnnamed(behind));
      ANABRANCH_RETURN_IF_ERROR(DropAndTell(std::move(stale)));
    } while (!behind.empty());
    return absl::OkStatus();
  }

  absl::Status DropAndTell(std::vector<DropStaleKey> stale) {
    ANABRANCH_RETURN_IF_ERROR(Drop(std::move(stale)));
    const int64_t all = 7 * store_.stats().states + 1;
    return Tell("scanning", report_.keys_scanned, all);
  }

  // Of the keys from `from` on, as many as one snapshot is kept for; `from` is empty at the end.
  absl::StatusOr<std::vector<DropStaleKey>> NextStale(Family family, std::string& from) {
    std::vector<std::string> keys;
    std::vector<DropStaleKey> stale;
    std::string next;
    const Snapshot snapshot(database_);
    ANABRANCH_RETURN_IF_ERROR(
        snapshot.Scan(family, "", from, [&](absl::string_view key, absl::string_view) {
          if (keys.size() == kKeysPerSnapshot) {
            next = std::string(key);
            return false;
          }
          keys.emplace_back(key);
          return true;
        }));
    for (std::string& key : keys) {
      ANABRANCH_ASSIGN_OR_RETURN(const bool leads_nowhere, IsStale(snapshot, family, key));
      if (leads_nowhere) stale.push_back({family, std::move(key)});
    }
    report_.keys_scanned += static_cast<int64_t>(keys.size());
    from = std::move(next);
    return stale;
  }

  // Of the payloads of as many states as one snapshot is kept for, from behind the state `behind`
  // on; that is empty at the end.
  absl::StatusOr<std::vector<DropStaleKey>> NextUnnamed(std::string& behind) {
    const Snapshot snapshot(database_);
    PayloadGaps gaps(snapshot, behind);
    const std::unique_ptr<Cursor> cursor = snapshot.NewCursor(Family::kStates, "");
    cursor->Seek(behind);
    if (cursor->Valid() && cursor->key() == behind) cursor->Next();
    size_t states = 0;
    for (; cursor->Valid() && states < kKeysPerSnapshot; cursor->Next(), ++states) {
      behind = std::string(cursor->key());
      const absl::StatusOr<StoredState> state = DecodeState(behind, cursor->value());
      ANABRANCH_RETURN_IF_ERROR(gaps.Pass(behind, state.ok() ? &state->record : nullptr));
    }
    ANABRANCH_RETURN_IF_ERROR(cursor->status());
    report_.keys_scanned += static_cast<int64_t>(states);
    if (cursor->Valid()) {
      ANABRANCH_RETURN_IF_ERROR(gaps.Pause());
    } else {
      ANABRANCH_RETURN_IF_ERROR(gaps.Finish());
      behind.clear();
    }
    std::vector<DropStaleKey> stale;
    for (UnnamedPayload& found : gaps.Take()) {
      stale.push_back({Family::kPayloads, std::move(found.key), found.bytes});
    }
    return stale;
  }

  void Count(const DropStaleKey& stale) {
    if (stale.family != Family::kPayloads) {
      ++report_.stale_keys;
      return;
    }
    ++report_.orphaned_payloads;
    report_.orphaned_payload_bytes += static_cast<int64_t>(stale.bytes);
  }

  absl::Status Drop(std::vector<DropStaleKey> stale) {
    if (stale.empty()) return absl::OkStatus();
    ReachCrashPoint(CrashPoint::kGarbageFound);
    if (options_.dry_run) {
      for (const DropStaleKey& each : stale) Count(each);
      return absl::OkStatus();
    }
    for (size_t i = 0; i < stale.size(); i += kKeysPerCommit) {
      Mutation mutation;
      mutation.effect = std::make_shared<MutationEffect>();
      const std::shared_ptr<MutationEffect> effect = mutation.effect;
      for (size_t j = i; j < std::min(i + kKeysPerCommit, stale.size()); ++j) {
        mutation.operations.push_back(std::move(stale[j]));
      }
      ANABRANCH_RETURN_IF_ERROR(store_.CommitAndWait(std::move(mutation)));
      ReachCrashPoint(CrashPoint::kGarbageDropped);
      report_.stale_keys += effect->stale_keys;
      report_.orphaned_blobs += effect->orphaned_blobs;
      report_.orphaned_bytes -= effect->bytes;
      report_.orphaned_payloads += effect->orphaned_payloads;
      report_.orphaned_payload_bytes += effect->orphaned_payload_bytes;
    }
    return absl::OkStatus();
  }

  // Deletions reach the values only when they meet them in a compaction.
  absl::Status Compact() {
    ANABRANCH_RETURN_IF_ERROR(database_.Flush());
    ReachCrashPoint(CrashPoint::kGarbageFlushed);
    for (int family = 0; family < kFamilies; ++family) {
      ANABRANCH_RETURN_IF_ERROR(Tell("compacting", family, kFamilies));
      ANABRANCH_RETURN_IF_ERROR(
          database_.Compact(static_cast<Family>(family), options_.keep_going));
    }
    ReachCrashPoint(CrashPoint::kGarbageCompacted);
    return absl::OkStatus();
  }

  // The oldest files first, a part of them at a time: that bounds the space needed meanwhile.
  absl::Status Rewrite() {
    for (int round = 0; round < kMaxRewrites; ++round) {
      const Database::ValueFiles files = database_.value_files();
      const double limit = options_.full && round == 0 ? 0 : kDeadPart;
      if (static_cast<double>(files.dead_bytes) <= limit * static_cast<double>(files.bytes)) break;
      ANABRANCH_RETURN_IF_ERROR(Tell("rewriting", round, kMaxRewrites));
      ANABRANCH_RETURN_IF_ERROR(database_.RewriteOldestValues(options_.keep_going));
      ReachCrashPoint(CrashPoint::kGarbageRewritten);
    }
    return absl::OkStatus();
  }

  Database& database_;
  StateStore& store_;
  const std::string& directory_;
  const GarbageOptions& options_;
  GarbageReport report_;
};

}  // namespace

absl::StatusOr<bool> IsStale(const KeyValueReader& reader, Family family, absl::string_view key) {
  switch (family) {
    case Family::kEdges:
      return IsStaleEdge(reader, key);
    case Family::kTimeline:
      return IsStaleTime(reader, key);
    case Family::kPrefixes:
      return IsStalePrefix(reader, key);
    case Family::kLog:
      return IsStaleLog(reader, key);
    case Family::kPayloads:
      return IsUnnamedPayload(reader, key);
    default:
      return false;
  }
}

std::string BlobOfEdge(absl::string_view edge_key) {
  const auto [tenant, rest] = Split(edge_key);
  if (rest.empty() || static_cast<Edge>(rest.front()) != Edge::kBlob) return "";
  return NamedKey(tenant, Split(rest.substr(1)).tenant);
}

absl::StatusOr<GarbageReport> CollectGarbage(Database& database, StateStore& store,
                                             const std::string& directory,
                                             const GarbageOptions& options) {
  return Collector(database, store, directory, options).Run();
}

}  // namespace anabranch
