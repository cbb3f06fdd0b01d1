// What the library lets go of by itself, and what it reports about that. StateStore runs the
// passes; whoever serves the library decides when.
//
// Expiry: a state whose time has passed is deleted. Never one that is pinned, or that a ref or a
// session needs: these are looked at again later. One that only appended states need loses its
// content and keeps its tokens (archived); one that a computed state needs stays whole.
//
// Eviction: while the states take more than a budget, those of least value are archived: value is
// recency + alpha * (tokens to the nearest state that is whole / bytes), both scaled to 0..1 over
// the candidates. Never pinned or labelled ones, those that a ref or session needs, with two or
// more children, or that a computed state needs. Once nothing is left to archive, the oldest
// archived ends of lines are deleted.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/time/time.h"

namespace anabranch {

// What a tenant holds.
struct TenantUse {
  int64_t states = 0, archived = 0;  // archived ones are states too
  int64_t sessions = 0, refs = 0;
  // Payloads, blobs (each once), headers and tokens of states.
  int64_t bytes = 0;

  friend bool operator==(const TenantUse&, const TenantUse&) = default;
};

// The most that each tenant may hold; 0: no limit. What would go past one is refused with
// RESOURCE_EXHAUSTED and a payload (kQuotaPayload): "name used limit".
struct Quotas {
  int64_t states = 0, sessions = 0, bytes = 0;
};
inline constexpr char kQuotaPayload[] = "anabranch/quota";

// How much there may be before the least valuable is let go of, down to `low_bytes`.
struct EvictionBudget {
  int64_t high_bytes = 0, low_bytes = 0;  // of all tenants; 0: no budget
  double alpha = 0.7;
};

// Called now and then by whatever takes long; false: end soon. May be null.
using KeepGoing = std::function<bool()>;

struct SweepOptions {
  absl::Time now;
  // When to look again at an expired state that is needed.
  absl::Duration look_again = absl::Hours(1);
  EvictionBudget budget;
  KeepGoing keep_going;
};

struct SweepReport {
  int64_t expired = 0, expired_archived = 0;  // deleted; archived
  int64_t evicted = 0, deleted = 0;           // archived for the budget; archived ones deleted
  int64_t freed_bytes = 0;
  bool budget_unreachable = false;
};

// Garbage. A state's record, payload, blobs and index entries go in one batch with it, so commits
// leave none in the key space; damage that was healed may leave entries that lead nowhere, and
// payloads, or parts of some, that no record names. What deleting leaves is space: values stay in
// RocksDB's files until these are rewritten.
struct GarbageReport {
  absl::Time start, end;
  bool dry_run = false;
  int64_t keys_scanned = 0, stale_keys = 0;
  int64_t orphaned_blobs = 0, orphaned_bytes = 0;
  int64_t orphaned_payloads = 0, orphaned_payload_bytes = 0;  // values that no record names
  int64_t dead_bytes_before = 0, dead_bytes_after = 0;        // in files of values
  int64_t disk_bytes_before = 0, disk_bytes_after = 0;
};

struct GarbageProgress {
  const char* phase = "";  // "scanning", "compacting", "rewriting", "done"
  int64_t done = 0, total = 0;
  GarbageReport report;  // so far
};

struct GarbageOptions {
  bool dry_run = false;
  bool full = false;  // rewrite files of values even if little in them is dead
  std::function<void(const GarbageProgress&)> progress;
  KeepGoing keep_going;
};

}  // namespace anabranch
