// The library: immutable states with lineage, mutable refs, sessions with their token logs, and an
// index from token prefixes to states. The store sees bytes plus a typed record; it knows nothing
// about models.
//
// Durability: Commit applies all operations of a mutation or none, and calls back only after the
// write is on disk (synced). Mutations that arrive together share one sync (group commit). Nothing
// is visible to readers before it is durable. See DURABILITY.md.
//
// Thread rule: every member may be called from any thread. Commit callbacks run on threads of the
// store, one at a time and in the order of the commits, and must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "statestore/backup.h"
#include "statestore/mutation.h"
#include "statestore/records.h"
#include "statestore/retention.h"
#include "statestore/scrub.h"
#include "statestore/store_options.h"

namespace anabranch {

using CommitDone = std::function<void(absl::Status)>;

// Gives memory of so many bytes.
using PayloadMemory = absl::FunctionRef<absl::StatusOr<absl::Span<char>>(size_t bytes)>;

struct StateName {
  std::string tenant, id;
};

// Who needs a state: one of each kind, or empty.
struct StateUse {
  std::string child, ref, session;
};

// Told of every commit group once it is durable and before its commits are answered, on a thread of
// the store; must not block. `states`, perhaps repeatedly: those that came, changed, went or are
// needed otherwise than before; also of a group before that a full disk refused, once it turns out
// to be there.
using ChangeObserver =
    std::function<void(uint64_t commit_seq, const std::vector<StateName>& states)>;

struct StateFilter {
  std::string fingerprint;    // empty: any
  Labels labels;              // all must match
  std::string descendant_of;  // only states below this one (itself excluded); empty: any
  // From created_after on, before created_before.
  absl::Time created_after = absl::InfinitePast(), created_before = absl::InfiniteFuture();
};

// One page of a listing. `next` is opaque; empty at the end. INVALID_ARGUMENT for a foreign token.
struct PageRequest {
  int32_t size = 100;
  std::string token;
};
template <typename T>
struct Page {
  std::vector<T> items;
  std::string next;
};

// Who needs a state.
struct StateUsers {
  std::vector<std::string> children, refs, sessions;  // sorted
};

struct StoreStats {
  uint64_t commit_seq = 0;
  // Of all tenants. Archived states are states too; state_bytes as TenantUse counts them.
  int64_t states = 0, archived = 0, refs = 0, sessions = 0, state_bytes = 0;
  uint64_t disk_bytes = 0;  // of a few seconds ago
  bool read_only = false;
  std::string read_only_reason;
};

// Which states count as the prefix of a history: all with content, or those whose content is bit
// for bit what reading the prefix gives.
enum class PrefixKind { kAny, kExact };

// What a state at a branch point must save to be worth its bytes: about the tokens that a model is
// read through while a state of a few MB is loaded.
inline constexpr int64_t kMinBranchTokens = 64;

class StateStore {
 public:
  virtual ~StateStore() = default;

  virtual void Commit(Mutation mutation, CommitDone done) = 0;
  virtual absl::Status CommitAndWait(Mutation mutation);

  virtual absl::StatusOr<StateRecord> GetState(const std::string& tenant,
                                               const std::string& id) = 0;
  // Reads are verified: DATA_LOSS names the state and what is damaged.
  virtual absl::StatusOr<std::string> GetPayload(const std::string& tenant,
                                                 const std::string& id) = 0;
  // Into the memory that is asked for once, with several threads if it is large (payloads.h says
  // what is checked). After an error the memory holds anything.
  virtual absl::Status ReadPayload(const std::string& tenant, const std::string& id,
                                   PayloadMemory memory) = 0;
  virtual absl::StatusOr<std::string> GetBlob(const std::string& tenant,
                                              const std::string& hash) = 0;
  virtual absl::StatusOr<bool> HasBlob(const std::string& tenant, const std::string& hash) = 0;
  virtual absl::StatusOr<Page<StateRecord>> ListStates(const std::string& tenant,
                                                       const StateFilter& filter,
                                                       const PageRequest& page) = 0;
  // All tokens from the root, or the computed state above it, to the state.
  virtual absl::StatusOr<std::vector<int32_t>> GetTokens(const std::string& tenant,
                                                         const std::string& id) = 0;
  // The state and its ancestors along first parents, newest first.
  virtual absl::StatusOr<Page<StateRecord>> GetLineage(const std::string& tenant,
                                                       const std::string& id,
                                                       const PageRequest& page) = 0;
  // Of a state that does not exist: nobody.
  virtual absl::StatusOr<StateUsers> GetUsers(const std::string& tenant, const std::string& id) = 0;
  // The deepest state of this tenant, model and profile whose tokens are a prefix of `tokens`
  // (the whole of it included); nullopt if there is none.
  virtual absl::StatusOr<std::optional<StateRecord>> FindPrefix(const std::string& tenant,
                                                                const std::string& fingerprint,
                                                                const std::string& numerics_profile,
                                                                absl::Span<const int32_t> tokens,
                                                                PrefixKind kind) = 0;
  // How many of the first tokens some lineage of this tenant, model and profile has, with a state
  // at their end or without (branch_points.h); as far as they pass the state before by at least
  // kMinBranchTokens.
  virtual absl::StatusOr<int64_t> FindBranchPoint(const std::string& tenant,
                                                  const std::string& fingerprint,
                                                  const std::string& numerics_profile,
                                                  absl::Span<const int32_t> tokens) = 0;

  // Of a state that is not there: nobody.
  virtual absl::StatusOr<StateUse> GetStateUse(const std::string& tenant,
                                               const std::string& id) = 0;
  // Ids of all states below this one, itself excluded. NOT_FOUND.
  virtual absl::StatusOr<absl::flat_hash_set<std::string>> Descendants(const std::string& tenant,
                                                                       const std::string& id) = 0;
  // Every state of every tenant. For whoever keeps something that is derived from them.
  virtual absl::StatusOr<std::vector<StateName>> AllStates() = 0;
  // At most one; null: none. None runs after SetObserver returned.
  virtual void SetObserver(ChangeObserver observer) = 0;

  virtual absl::StatusOr<RefRecord> GetRef(const std::string& tenant, const std::string& name) = 0;
  virtual absl::StatusOr<Page<RefRecord>> ListRefs(const std::string& tenant,
                                                   const std::string& prefix,
                                                   const PageRequest& page) = 0;

  virtual absl::StatusOr<SessionRecord> GetSession(const std::string& tenant,
                                                   const std::string& id) = 0;
  virtual absl::StatusOr<Page<SessionRecord>> ListSessions(const std::string& tenant,
                                                           const std::string& prefix,
                                                           const PageRequest& page) = 0;
  struct LogContents {
    int64_t position = 0;  // index of the first token
    std::vector<int32_t> tokens;
  };
  virtual absl::StatusOr<LogContents> GetLog(const std::string& tenant,
                                             const std::string& session) = 0;
  // NOT_FOUND if the request id was not seen in the last day.
  virtual absl::StatusOr<std::string> GetAnswer(const std::string& tenant,
                                                const std::string& request_id) = 0;

  virtual TenantUse GetUse(const std::string& tenant) const = 0;
  // Lets go of what has expired and of what is beyond the budget (retention.h). Blocks, reads from
  // snapshots and writes in commits of a few states each. One at a time.
  virtual absl::StatusOr<SweepReport> Sweep(const SweepOptions& options) = 0;
  // Removes what leads nowhere and rewrites files that hold mostly what is gone. Blocks; one at a
  // time. CANCELLED if keep_going said so: what was done stays done.
  virtual absl::StatusOr<GarbageReport> CollectGarbage(const GarbageOptions& options) = 0;
  // Copies the library as it is at some commit from now on (backup.h), while commits go on.
  virtual absl::StatusOr<BackupInfo> Backup(const BackupRequest& request) = 0;
  // One step of reading all that the library holds (scrub.h).
  virtual absl::StatusOr<ScrubStep> Scrub(const std::string& from, uint64_t max_bytes) = 0;

  virtual StoreStats stats() const = 0;
};

// Opens the RocksDB engine. Errors: FAILED_PRECONDITION (another process has the library open, or
// it was written by a newer version), DATA_LOSS (acknowledged commits are missing: says how many).
absl::StatusOr<std::unique_ptr<StateStore>> OpenStateStore(const StoreOptions& options);

}  // namespace anabranch
