#include "statestore/rocks_state_store.h"

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "statestore/base/status_macros.h"
#include "statestore/branch_points.h"
#include "statestore/eviction.h"
#include "statestore/expiry_sweep.h"
#include "statestore/garbage.h"
#include "statestore/library_files.h"
#include "statestore/library_reads.h"
#include "statestore/names.h"
#include "statestore/payloads.h"
#include "statestore/rocks_options.h"

namespace anabranch {
namespace {

// Tokens of the state from its last to its first, span by span. A computed state's span is all it
// has read.
absl::Status WalkSpans(const Snapshot& snapshot, absl::string_view tenant, absl::string_view id,
                       absl::FunctionRef<bool(const StateRecord&)> visit) {
  return WalkLineage(snapshot, tenant, id, [&](const StoredState& state) -> absl::StatusOr<bool> {
    return visit(state.record) && state.record.operation == StateOperation::kAppend;
  });
}

// Whether the state was read from exactly the first `length` of the tokens.
absl::StatusOr<bool> IsPrefix(const Snapshot& snapshot, absl::string_view tenant,
                              const std::string& id, absl::Span<const int32_t> tokens) {
  int64_t left = static_cast<int64_t>(tokens.size());
  bool equal = true;
  ANABRANCH_RETURN_IF_ERROR(WalkSpans(snapshot, tenant, id, [&](const StateRecord& record) {
    const int64_t span = static_cast<int64_t>(record.span_tokens.size());
    equal = span <= left &&
            tokens.subspan(left - span, span) == absl::MakeConstSpan(record.span_tokens);
    left -= span;
    return equal;
  }));
  return equal && left == 0;
}

}  // namespace

absl::Status StateStore::CommitAndWait(Mutation mutation) {
  absl::Notification answered;
  absl::Status answer;
  Commit(std::move(mutation), [&](absl::Status status) {
    answer = std::move(status);
    answered.Notify();
  });
  answered.WaitForNotification();
  return answer;
}

RocksStateStore::RocksStateStore(const StoreOptions& options, std::unique_ptr<LibraryLock> lock,
                                 std::unique_ptr<Database> database,
                                 std::unique_ptr<HighWaterMark> mark,
                                 std::unique_ptr<CommitJournal> journal,
                                 const std::string& hash_key, uint64_t commit_seq, UseByTenant use)
    : options_(options),
      lock_(std::move(lock)),
      database_(std::move(database)),
      hasher_(hash_key),
      page_tokens_(hash_key),
      writer_(*database_, std::move(mark), std::move(journal), hasher_, commit_seq, std::move(use),
              options) {
  recent_uses_.Load(EnvOf(options_), LibraryFiles(options_.directory).uses);
}

RocksStateStore::~RocksStateStore() {
  recent_uses_.Save(EnvOf(options_), LibraryFiles(options_.directory).uses);
}

void RocksStateStore::Commit(Mutation mutation, CommitDone done) {
  writer_.Enqueue(std::move(mutation), std::move(done));
}

absl::Status RocksStateStore::CommitAndWait(Mutation mutation) {
  return writer_.Commit(std::move(mutation));
}

absl::StatusOr<StateRecord> RocksStateStore::GetState(const std::string& tenant,
                                                      const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state, ReadState(Snapshot(*database_), tenant, id));
  return std::move(state.record);
}

absl::StatusOr<std::string> RocksStateStore::GetPayload(const std::string& tenant,
                                                        const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  const Snapshot snapshot(*database_);
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState state, ReadState(snapshot, tenant, id));
  recent_uses_.Note(NamedKey(tenant, id), absl::Now());
  return anabranch::ReadPayload(snapshot, state.record);
}

absl::Status RocksStateStore::ReadPayload(const std::string& tenant, const std::string& id,
                                          PayloadMemory memory) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  const Snapshot snapshot(*database_);
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState state, ReadState(snapshot, tenant, id));
  recent_uses_.Note(NamedKey(tenant, id), absl::Now());
  return anabranch::ReadPayload(snapshot, state.record, memory);
}

absl::StatusOr<std::string> RocksStateStore::GetBlob(const std::string& tenant,
                                                     const std::string& hash) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateBlobHash("hash", hash));
  return ReadBlob(Snapshot(*database_), tenant, hash);
}

// A blob lives exactly as long as a state needs it, so its edges say that it is there.
absl::StatusOr<bool> RocksStateStore::HasBlob(const std::string& tenant, const std::string& hash) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateBlobHash("hash", hash));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string user,
                             AnyUser(Snapshot(*database_), tenant, Edge::kBlob, hash));
  return !user.empty();
}

absl::StatusOr<std::vector<int32_t>> RocksStateStore::GetTokens(const std::string& tenant,
                                                                const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  std::vector<std::vector<int32_t>> spans;  // last first
  ANABRANCH_RETURN_IF_ERROR(
      WalkSpans(Snapshot(*database_), tenant, id, [&](const StateRecord& record) {
        spans.push_back(record.span_tokens);
        return true;
      }));
  std::vector<int32_t> tokens;
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    tokens.insert(tokens.end(), span->begin(), span->end());
  }
  return tokens;
}

absl::StatusOr<std::optional<StateRecord>> RocksStateStore::FindPrefix(
    const std::string& tenant, const std::string& fingerprint, const std::string& numerics_profile,
    absl::Span<const int32_t> tokens, PrefixKind kind) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  const Snapshot snapshot(*database_);
  const auto accept = [&](int64_t length, const std::string& id) -> absl::StatusOr<bool> {
    ANABRANCH_ASSIGN_OR_RETURN(const bool prefix,
                               IsPrefix(snapshot, tenant, id, tokens.subspan(0, length)));
    if (!prefix || kind == PrefixKind::kAny) return prefix;
    ANABRANCH_ASSIGN_OR_RETURN(const StoredState state, ReadState(snapshot, tenant, id));
    return IsExact(state.record);
  };
  ANABRANCH_ASSIGN_OR_RETURN(
      const std::optional<std::string> id,
      FindLongestPrefix(snapshot,
                        PrefixScopeKey(tenant, hasher_.Scope(fingerprint, numerics_profile)),
                        hasher_.Chain(tokens), accept));
  if (!id.has_value()) return std::optional<StateRecord>();
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state, ReadState(snapshot, tenant, *id));
  return std::optional<StateRecord>(std::move(state.record));
}

absl::StatusOr<int64_t> RocksStateStore::FindBranchPoint(const std::string& tenant,
                                                         const std::string& fingerprint,
                                                         const std::string& numerics_profile,
                                                         absl::Span<const int32_t> tokens) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  return anabranch::FindBranchPoint(Snapshot(*database_), hasher_, tenant,
                                    hasher_.Scope(fingerprint, numerics_profile), tokens);
}

absl::StatusOr<StateUse> RocksStateStore::GetStateUse(const std::string& tenant,
                                                      const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  const Snapshot snapshot(*database_);
  StateUse use;
  ANABRANCH_ASSIGN_OR_RETURN(use.child, AnyUser(snapshot, tenant, Edge::kChild, id));
  ANABRANCH_ASSIGN_OR_RETURN(use.ref, AnyUser(snapshot, tenant, Edge::kRef, id));
  ANABRANCH_ASSIGN_OR_RETURN(use.session, AnyUser(snapshot, tenant, Edge::kSession, id));
  return use;
}

absl::StatusOr<std::vector<StateName>> RocksStateStore::AllStates() {
  return ReadStateNames(Snapshot(*database_));
}

absl::StatusOr<RefRecord> RocksStateStore::GetRef(const std::string& tenant,
                                                  const std::string& name) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("name", name));
  return ReadRef(Snapshot(*database_), tenant, name);
}

absl::StatusOr<SessionRecord> RocksStateStore::GetSession(const std::string& tenant,
                                                          const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("id", id));
  return ReadSession(Snapshot(*database_), tenant, id);
}

absl::StatusOr<StateStore::LogContents> RocksStateStore::GetLog(const std::string& tenant,
                                                                const std::string& session) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateName("session", session));
  const Snapshot snapshot(*database_);
  ANABRANCH_ASSIGN_OR_RETURN(const LogBounds bounds, ReadLogBounds(snapshot, tenant, session));
  LogContents contents;
  contents.position = bounds.start;
  ANABRANCH_ASSIGN_OR_RETURN(contents.tokens, ReadLogTokens(snapshot, tenant, session, bounds));
  return contents;
}

absl::StatusOr<std::string> RocksStateStore::GetAnswer(const std::string& tenant,
                                                       const std::string& request_id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateRequestId("request_id", request_id));
  const std::string key = NamedKey(tenant, request_id);
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> value,
                             Snapshot(*database_).Get(Family::kAnswers, key));
  if (value.has_value()) {
    ANABRANCH_ASSIGN_OR_RETURN(StoredAnswer answer, DecodeAnswer(key, *value));
    if (absl::Now() - answer.answered < kAnswerLifetime) return std::move(answer.answer);
  }
  return absl::NotFoundError("the request id was not seen in the last day");
}

// What was acknowledged before the call is in the copy.
absl::StatusOr<BackupInfo> RocksStateStore::Backup(const BackupRequest& request) {
  return CreateBackup(*database_, writer_.commit_seq(), request);
}

absl::StatusOr<ScrubStep> RocksStateStore::Scrub(const std::string& from, uint64_t max_bytes) {
  return ScrubNext(*database_, hasher_, from, max_bytes);
}

absl::StatusOr<SweepReport> RocksStateStore::Sweep(const SweepOptions& options) {
  SweepReport report;
  recent_uses_.Save(EnvOf(options_), LibraryFiles(options_.directory).uses);
  ANABRANCH_RETURN_IF_ERROR(ExpireDue(*database_, *this, options, report));
  ANABRANCH_RETURN_IF_ERROR(Evict(*database_, *this, recent_uses_, options, report));
  return report;
}

absl::StatusOr<GarbageReport> RocksStateStore::CollectGarbage(const GarbageOptions& options) {
  return anabranch::CollectGarbage(*database_, *this, options_.directory, options);
}

StoreStats RocksStateStore::stats() const {
  StoreStats stats;
  stats.commit_seq = writer_.commit_seq();
  const TenantUse use = writer_.total_use();
  stats.states = use.states;
  stats.archived = use.archived;
  stats.refs = use.refs;
  stats.sessions = use.sessions;
  stats.state_bytes = use.bytes;
  stats.disk_bytes = disk_bytes_.Get(options_.directory);
  stats.read_only_reason = writer_.read_only_reason();
  stats.read_only = !stats.read_only_reason.empty();
  return stats;
}

}  // namespace anabranch
