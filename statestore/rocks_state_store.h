// StateStore on RocksDB: reads from snapshots, writes through the commit writer. Opening is in
// open_library.cc.
#pragma once

#include <memory>

#include "statestore/commit_writer.h"
#include "statestore/database.h"
#include "statestore/disk_use.h"
#include "statestore/library_lock.h"
#include "statestore/page_token.h"
#include "statestore/prefix_index.h"
#include "statestore/recent_uses.h"
#include "statestore/state_store.h"

namespace anabranch {

// Every read takes a snapshot first, so that what it puts together (a record and its payload, a log
// and its bounds, a lineage) is of one moment. Every value is verified before it is returned:
// library_reads.h has the checks, and the words of their errors.
class RocksStateStore : public StateStore {
 public:
  // Starts the writer thread. `hash_key`: the library's random bytes. `commit_seq`: what was
  // recovered, already compared with the mark.
  RocksStateStore(const StoreOptions& options, std::unique_ptr<LibraryLock> lock,
                  std::unique_ptr<Database> database, std::unique_ptr<HighWaterMark> mark,
                  std::unique_ptr<CommitJournal> journal, const std::string& hash_key,
                  uint64_t commit_seq, UseByTenant use);
  ~RocksStateStore() override;

  // Goes to the queue of the writer thread.
  void Commit(Mutation mutation, CommitDone done) override;
  // May write on the caller's thread.
  absl::Status CommitAndWait(Mutation mutation) override;

  absl::StatusOr<StateRecord> GetState(const std::string& tenant, const std::string& id) override;
  absl::StatusOr<std::string> GetPayload(const std::string& tenant, const std::string& id) override;
  absl::Status ReadPayload(const std::string& tenant, const std::string& id,
                           PayloadMemory memory) override;
  absl::StatusOr<std::string> GetBlob(const std::string& tenant, const std::string& hash) override;
  absl::StatusOr<bool> HasBlob(const std::string& tenant, const std::string& hash) override;
  absl::StatusOr<Page<StateRecord>> ListStates(const std::string& tenant, const StateFilter& filter,
                                               const PageRequest& page) override;
  absl::StatusOr<std::vector<int32_t>> GetTokens(const std::string& tenant,
                                                 const std::string& id) override;
  absl::StatusOr<Page<StateRecord>> GetLineage(const std::string& tenant, const std::string& id,
                                               const PageRequest& page) override;
  absl::StatusOr<StateUsers> GetUsers(const std::string& tenant, const std::string& id) override;
  absl::StatusOr<std::optional<StateRecord>> FindPrefix(const std::string& tenant,
                                                        const std::string& fingerprint,
                                                        const std::string& numerics_profile,
                                                        absl::Span<const int32_t> tokens,
                                                        PrefixKind kind) override;
  absl::StatusOr<int64_t> FindBranchPoint(const std::string& tenant, const std::string& fingerprint,
                                          const std::string& numerics_profile,
                                          absl::Span<const int32_t> tokens) override;

  // Of one moment, like every read here.
  absl::StatusOr<StateUse> GetStateUse(const std::string& tenant, const std::string& id) override;
  absl::StatusOr<absl::flat_hash_set<std::string>> Descendants(const std::string& tenant,
                                                               const std::string& id) override;
  absl::StatusOr<std::vector<StateName>> AllStates() override;
  // Passed on to the writer thread.
  void SetObserver(ChangeObserver observer) override { writer_.SetObserver(std::move(observer)); }

  absl::StatusOr<RefRecord> GetRef(const std::string& tenant, const std::string& name) override;
  absl::StatusOr<Page<RefRecord>> ListRefs(const std::string& tenant, const std::string& prefix,
                                           const PageRequest& page) override;
  absl::StatusOr<SessionRecord> GetSession(const std::string& tenant,
                                           const std::string& id) override;
  absl::StatusOr<Page<SessionRecord>> ListSessions(const std::string& tenant,
                                                   const std::string& prefix,
                                                   const PageRequest& page) override;
  absl::StatusOr<LogContents> GetLog(const std::string& tenant,
                                     const std::string& session) override;
  absl::StatusOr<std::string> GetAnswer(const std::string& tenant,
                                        const std::string& request_id) override;
  // Beside commits: what it copies is of one commit, and the database stays open meanwhile.
  absl::StatusOr<BackupInfo> Backup(const BackupRequest& request) override;
  absl::StatusOr<ScrubStep> Scrub(const std::string& from, uint64_t max_bytes) override;
  TenantUse GetUse(const std::string& tenant) const override { return writer_.use(tenant); }
  // In small commits and from short snapshots: expiry_sweep.h, eviction.h, garbage.h.
  absl::StatusOr<SweepReport> Sweep(const SweepOptions& options) override;
  absl::StatusOr<GarbageReport> CollectGarbage(const GarbageOptions& options) override;
  StoreStats stats() const override;

 private:
  const StoreOptions options_;
  const std::unique_ptr<LibraryLock> lock_;  // first: released when all else is closed
  const std::unique_ptr<Database> database_;
  const PrefixHasher hasher_;
  const PageTokens page_tokens_;
  RecentUses recent_uses_;
  DiskUse disk_bytes_;
  CommitWriter writer_;  // last: stops before what it uses goes
};

}  // namespace anabranch
