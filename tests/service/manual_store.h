// A library for tests of what the service writes to it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "statestore/state_store.h"

namespace anabranch {

// Keeps mutations; a test answers them when it likes, in order, as the library does.
class ManualStore final : public StateStore {
 public:
  void Commit(Mutation mutation, CommitDone done) override {
    mutations.push_back(std::move(mutation));
    pending.push_back(std::move(done));
  }
  void Answer(const absl::Status& status = absl::OkStatus()) {
    CommitDone done = std::move(pending.front());
    pending.erase(pending.begin());
    done(status);
  }
  // Nothing else is called.
  absl::StatusOr<StateRecord> GetState(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::string> GetPayload(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::Status ReadPayload(const std::string&, const std::string&, PayloadMemory) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::string> GetBlob(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<bool> HasBlob(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<Page<StateRecord>> ListStates(const std::string&, const StateFilter&,
                                               const PageRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::vector<int32_t>> GetTokens(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<Page<StateRecord>> GetLineage(const std::string&, const std::string&,
                                               const PageRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<StateUsers> GetUsers(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::optional<StateRecord>> FindPrefix(const std::string&, const std::string&,
                                                        const std::string&,
                                                        absl::Span<const int32_t>,
                                                        PrefixKind) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<int64_t> FindBranchPoint(const std::string&, const std::string&,
                                          const std::string&, absl::Span<const int32_t>) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<StateUse> GetStateUse(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<absl::flat_hash_set<std::string>> Descendants(const std::string&,
                                                               const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::vector<StateName>> AllStates() override {
    return absl::UnimplementedError("");
  }
  void SetObserver(ChangeObserver) override {}
  absl::StatusOr<RefRecord> GetRef(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<Page<RefRecord>> ListRefs(const std::string&, const std::string&,
                                           const PageRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionRecord> GetSession(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<Page<SessionRecord>> ListSessions(const std::string&, const std::string&,
                                                   const PageRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<LogContents> GetLog(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::string> GetAnswer(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<BackupInfo> Backup(const BackupRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<ScrubStep> Scrub(const std::string&, uint64_t) override {
    return absl::UnimplementedError("");
  }
  TenantUse GetUse(const std::string&) const override { return {}; }
  absl::StatusOr<SweepReport> Sweep(const SweepOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<GarbageReport> CollectGarbage(const GarbageOptions&) override {
    return absl::UnimplementedError("");
  }
  StoreStats stats() const override {
    absl::MutexLock lock(&mutex);
    return current;
  }

  std::vector<Mutation> mutations;
  std::vector<CommitDone> pending;
  mutable absl::Mutex mutex;
  StoreStats current;
};

}  // namespace anabranch
