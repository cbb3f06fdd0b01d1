#include "service/session_manager.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/state_loading.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status Busy(const std::string& id) {
  return ErrorWithReason(absl::StatusCode::kAborted, "SESSION_BUSY",
                         absl::StrCat("session ", id, " is used by another call: retry later"),
                         {{"session_id", id}});
}

// The states that the session has captured and may thin, in the order of positions.
absl::StatusOr<std::vector<LineState>> OwnLine(StateStore& store, const SessionRecord& record) {
  std::vector<LineState> line;
  if (record.head_position < record.thin_from) return line;
  ANABRANCH_RETURN_IF_ERROR(
      VisitLineage(store, record.tenant, record.head_state, [&](const StateRecord& state) {
        if (state.token_count < record.thin_from) return false;
        if (IsWhole(state)) {
          line.push_back(
              {state.id, state.token_count, state.kind, static_cast<int64_t>(state.payload_bytes)});
        }
        return state.operation == StateOperation::kAppend;
      }));
  std::reverse(line.begin(), line.end());
  return line;
}

bool HasPages(const SlotPool::Usage& usage, int64_t tokens) {
  // The last page may be shared with a fork, and is then copied.
  const int64_t needed = tokens / kKvPageTokens + 2;
  return usage.pages_total == 0 || usage.pages_total - usage.pages_used >= needed;
}

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

}  // namespace

void SessionLease::Release() {
  if (session_ == nullptr) return;
  manager_->Release(session_, discarded_);
  session_ = nullptr;
}

absl::StatusOr<SessionLeasePtr> SessionManager::Acquire(const std::string& tenant,
                                                        const std::string& id) {
  std::shared_ptr<LiveSession> session, failed;
  {
    absl::MutexLock lock(&mutex_);
    AwaitUnloading(Key(tenant, id));
    std::shared_ptr<LiveSession>& entry = sessions_[Key(tenant, id)];
    if (entry != nullptr && entry->busy) return Busy(id);
    if (entry != nullptr && !entry->journal->error().ok()) failed = std::exchange(entry, nullptr);
    if (entry == nullptr) {
      entry = std::make_shared<LiveSession>();
      entry->tenant = tenant;
      entry->id = id;
    }
    entry->busy = true;
    session = entry;
  }
  if (session->journal == nullptr) {
    auto journal = ReadJournal(tenant, id);
    absl::MutexLock lock(&mutex_);
    if (!journal.ok()) {
      sessions_.erase(Key(tenant, id));
      return journal.status();
    }
    session->journal = *std::move(journal);
  }
  return std::make_shared<SessionLease>(this, std::move(session));
}

absl::StatusOr<SessionLeasePtr> SessionManager::AcquireNew(const SessionRecord& record,
                                                           std::vector<int32_t> tail) {
  const auto taken =
      ErrorWithReason(absl::StatusCode::kAlreadyExists, "SESSION_EXISTS",
                      absl::StrCat("session ", record.id, " exists"), {{"session_id", record.id}});
  const auto stored = store_->GetSession(record.tenant, record.id);
  if (stored.ok()) return taken;
  if (!absl::IsNotFound(stored.status())) return stored.status();
  auto session = std::make_shared<LiveSession>();
  session->tenant = record.tenant;
  session->id = record.id;
  session->busy = true;
  session->journal =
      std::make_shared<SessionJournal>(store_, storing_, metrics_, record, std::move(tail),
                                       /*created=*/false);
  absl::MutexLock lock(&mutex_);
  if (!sessions_.emplace(Key(record.tenant, record.id), session).second) return taken;
  return std::make_shared<SessionLease>(this, std::move(session));
}

void SessionManager::AwaitUnloading(const Key& key) {
  const auto over = [this, &key]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = sessions_.find(key);
    return found == sessions_.end() || !found->second->unloading;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&over), kUnloadPatience);
}

void SessionManager::Release(const std::shared_ptr<LiveSession>& session, bool discarded) {
  SequencePtr dropped;  // outlives the lock: releasing a slot is not this mutex's business
  absl::MutexLock lock(&mutex_);
  const bool keep = !discarded && session->sequence != nullptr && session->journal->created() &&
                    session->journal->error().ok();
  session->busy = session->unloading = false;
  session->loaded = keep;
  session->last_used = absl::Now();
  if (keep) return;
  dropped = std::move(session->sequence);
  sessions_.erase(Key(session->tenant, session->id));
}

absl::StatusOr<std::shared_ptr<SessionJournal>> SessionManager::ReadJournal(
    const std::string& tenant, const std::string& id) {
  int64_t earlier_head = -1;
  while (true) {
    auto record = store_->GetSession(tenant, id);
    if (absl::IsNotFound(record.status())) {
      return ErrorWithReason(absl::StatusCode::kNotFound, "SESSION_NOT_FOUND",
                             absl::StrCat("session ", id, " does not exist"), {{"session_id", id}});
    }
    ANABRANCH_RETURN_IF_ERROR(record.status());
    ANABRANCH_ASSIGN_OR_RETURN(auto log, store_->GetLog(tenant, id));
    if (log.tokens.empty() || log.position == record->head_position) {
      return std::make_shared<SessionJournal>(store_, storing_, metrics_, *std::move(record),
                                              std::move(log.tokens), /*created=*/true);
    }
    // Between the two reads another call may have moved the head; if it stands still, the library
    // contradicts itself.
    if (record->head_position == earlier_head) {
      return absl::DataLossError(absl::StrCat("session ", id, ": the log begins at token ",
                                              log.position, ", the head state ends at ",
                                              record->head_position));
    }
    earlier_head = record->head_position;
  }
}

std::shared_ptr<SessionJournal> SessionManager::LiveJournal(const std::string& tenant,
                                                            const std::string& id, bool* busy,
                                                            bool* loaded) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(Key(tenant, id));
  if (found == sessions_.end()) return nullptr;
  *busy = found->second->busy;
  *loaded = found->second->loaded;
  const std::shared_ptr<SessionJournal>& journal = found->second->journal;
  const bool usable = journal != nullptr && journal->created() && journal->error().ok();
  return usable ? journal : nullptr;
}

bool SessionManager::Has(const std::string& tenant, const std::string& id) {
  absl::MutexLock lock(&mutex_);
  return sessions_.contains(Key(tenant, id));
}

absl::StatusOr<SessionView> SessionManager::View(const std::string& tenant, const std::string& id) {
  bool busy = false, loaded = false;
  std::shared_ptr<SessionJournal> journal = LiveJournal(tenant, id, &busy, &loaded);
  if (journal == nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(journal, ReadJournal(tenant, id));
  }
  SessionView view = journal->view();
  view.busy = busy;
  view.loaded = loaded;
  return view;
}

absl::StatusOr<std::vector<int32_t>> SessionManager::Tokens(const std::string& tenant,
                                                            const std::string& id) {
  // From the library alone: what is not durable yet may still be lost.
  ANABRANCH_ASSIGN_OR_RETURN(const auto journal, ReadJournal(tenant, id));
  const std::string head = journal->view().record.head_state;
  std::vector<int32_t> tokens;
  if (!head.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(tokens, store_->GetTokens(tenant, head));
  }
  const std::vector<int32_t> tail = journal->tail();
  tokens.insert(tokens.end(), tail.begin(), tail.end());
  return tokens;
}

absl::StatusOr<SessionView> SessionManager::ViewOf(const SessionRecord& record) {
  return View(record.tenant, record.id);
}

void SessionManager::Load(const SessionLeasePtr& lease, const WorkOptions& options,
                          v1::Usage* usage, const std::function<void(absl::Status)>& done) {
  if (lease->sequence() != nullptr) {
    usage->set_tokens_reused(engine_->Position(lease->sequence()));
    const StateOrigin origin = engine_->Origin(lease->sequence());
    usage->set_lossy_restores(static_cast<int32_t>(origin.lossy_restores));
    return done(absl::OkStatus());
  }
  const absl::Time start = absl::Now();
  std::vector<int32_t> unread;
  auto sequence = RestoreHead(*lease, &unread, usage);
  usage->set_restore_ms(usage->restore_ms() + Milliseconds(absl::Now() - start));
  if (!sequence.ok()) return done(sequence.status());
  const StateOrigin origin = engine_->Origin(*sequence);
  usage->set_lossy_restores(static_cast<int32_t>(origin.lossy_restores));
  Replay(lease, *std::move(sequence), std::move(unread), options, usage, done);
}

absl::StatusOr<SequencePtr> SessionManager::RestoreHead(SessionLease& lease,
                                                        std::vector<int32_t>* unread,
                                                        v1::Usage* usage) {
  const SessionRecord record = lease.journal().view().record;
  if (record.fingerprint != engine_->model().fingerprint()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
                           absl::StrCat("session ", record.id, " runs on model ",
                                        record.fingerprint, ", which this server does not serve"));
  }
  *unread = lease.journal().tail();
  if (record.head_state.empty()) {
    return WithRoom([this] { return engine_->NewSequence(); });
  }
  AwaitRecoding(record.tenant, record.head_state);
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<LineState> line, OwnLine(*store_, record));
  lease.journal().SetLine(std::move(line));
  heat_->Touch(record.head_state);
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord head,
                             store_->GetState(record.tenant, record.head_state));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(head, engine_->model()));
  if (!IsWhole(head)) return RestoreBase(record, head, unread, usage);
  ANABRANCH_ASSIGN_OR_RETURN(const std::shared_ptr<const LoadedState> state, LoadHead(head, usage));
  lease.journal().SetStoredBlobs(state->record.blob_hashes);
  usage->set_tokens_reused(state->record.token_count);
  return WithRoom([&] { return engine_->Restore(state->image, state->tokens); });
}

absl::StatusOr<std::shared_ptr<const LoadedState>> SessionManager::LoadHead(const StateRecord& head,
                                                                            v1::Usage* usage) {
  if (auto kept = host_states_->Find(head)) return kept;
  const auto block = [this](size_t bytes) {
    return host_states_->enabled() ? host_states_->Block(bytes) : engine_->PayloadMemory(bytes);
  };
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState state,
                             LoadToRestore(*store_, *engine_, head.tenant, head.id, block));
  usage->set_state_bytes_loaded(usage->state_bytes_loaded() + state.bytes);
  return host_states_->Keep(std::move(state));
}

// What an archived head is read again from; its own tokens go before those already in `unread`.
absl::StatusOr<SequencePtr> SessionManager::RestoreBase(const SessionRecord& session,
                                                        const StateRecord& head,
                                                        std::vector<int32_t>* unread,
                                                        v1::Usage* usage) {
  ANABRANCH_ASSIGN_OR_RETURN(
      const StateRecord base,
      FindPoint(*store_, head, head.token_count, storing_->BasesFor(session.checkpoints)));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                             store_->GetTokens(head.tenant, head.id));
  unread->insert(unread->begin(), tokens.begin() + base.token_count, tokens.end());
  MakePages(static_cast<int64_t>(tokens.size() + unread->size()));
  if (base.id.empty()) return WithRoom([this] { return engine_->NewSequence(); });
  const auto block = [this](size_t bytes) { return engine_->PayloadMemory(bytes); };
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState state,
                             LoadState(*store_, engine_->model(), base.tenant, base.id, block));
  usage->set_tokens_reused(base.token_count);
  usage->set_state_bytes_loaded(usage->state_bytes_loaded() + state.bytes);
  // It stands in for the head: what is captured next goes on from there.
  if (state.image.header.origin.lossy_restores > 0) {
    state.image.header.origin.restored_at = head.token_count;
  }
  return WithRoom([&] { return engine_->Restore(state.image, state.tokens); });
}

void SessionManager::AwaitRecoding(const std::string& tenant, const std::string& state) {
  const Key key(tenant, state);
  const auto over = [this, &key]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !recoding_.contains(key); };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&over));
}

absl::StatusOr<SessionManager::Hold> SessionManager::HoldForRecoding(const StateRecord& state,
                                                                     bool cold) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [key, session] : sessions_) {
    if (key.first != state.tenant || session->journal == nullptr) continue;
    if (session->journal->view().record.head_state != state.id) continue;
    if (session->busy || cold) return Busy(session->id);
    session->journal->SetStoredBlobs({});
  }
  if (!recoding_.emplace(state.tenant, state.id).second) {
    return ErrorWithReason(absl::StatusCode::kAborted, "STATE_BUSY",
                           absl::StrCat("state ", state.id, " is being recoded: retry later"),
                           {{"state_id", state.id}});
  }
  return Hold(this, [this, key = Key(state.tenant, state.id)](void*) {
    absl::MutexLock lock(&mutex_);
    recoding_.erase(key);
  });
}

void SessionManager::Replay(const SessionLeasePtr& lease, SequencePtr sequence,
                            std::vector<int32_t> unread, const WorkOptions& options,
                            v1::Usage* usage, const std::function<void(absl::Status)>& done) {
  if (unread.empty()) {
    lease->sequence() = std::move(sequence);
    return done(absl::OkStatus());
  }
  ReadWork work;
  work.sequence = sequence;
  work.tokens = std::move(unread);
  work.options = options;
  work.on_done = [this, lease, sequence, usage, done](const absl::Status& status,
                                                      const WorkStats& stats) {
    pool_->Run([=] {
      usage->set_tokens_replayed(usage->tokens_replayed() + stats.tokens_read);
      usage->set_queue_ms(usage->queue_ms() + Milliseconds(stats.queue_time));
      usage->set_compute_ms(usage->compute_ms() + Milliseconds(stats.compute_time));
      if (status.ok()) lease->sequence() = sequence;
      done(status);
    });
  };
  const absl::Status submitted = engine_->Submit(std::move(work));
  if (!submitted.ok()) done(submitted);
}

absl::StatusOr<SequencePtr> SessionManager::WithRoom(
    absl::FunctionRef<absl::StatusOr<SequencePtr>()> make_sequence) {
  while (true) {
    auto sequence = make_sequence();
    if (sequence.ok() || !absl::IsResourceExhausted(sequence.status())) return sequence;
    if (!UnloadOne()) {
      return ErrorWithReason(absl::StatusCode::kResourceExhausted, "SLOTS_EXHAUSTED",
                             "all slots of the engine are busy: retry later");
    }
  }
}

absl::Status SessionManager::MakeRoom(int32_t slots) {
  while (true) {
    const SlotPool::Usage usage = engine_->stats().slots;
    if (usage.slots_used + slots <= usage.slots_total) return absl::OkStatus();
    if (!UnloadOne()) {
      return ErrorWithReason(absl::StatusCode::kResourceExhausted, "SLOTS_EXHAUSTED",
                             "all slots of the engine are busy: retry later");
    }
  }
}

void SessionManager::MakePages(int64_t tokens) {
  while (!HasPages(engine_->stats().slots, tokens)) {
    if (!UnloadOne()) return;  // the engine says so when they really run out
  }
}

void SessionManager::MakeWritable(const SequencePtr& sequence, int64_t tokens) {
  const Engine& home = engine_->HomeOf(sequence);
  while (true) {
    const SlotPool::Usage usage = home.stats().slots;
    const bool has_slot = usage.slots_owed == 0 || usage.slots_used < usage.slots_total;
    if (has_slot && HasPages(usage, tokens)) return;
    if (!UnloadOne(&home)) return;
  }
}

std::shared_ptr<LiveSession> SessionManager::TakeLeastRecentlyUsed(const Engine* home) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<LiveSession> oldest;
  for (const auto& [key, session] : sessions_) {
    if (session->busy || session->sequence == nullptr) continue;
    if (home != nullptr && &engine_->HomeOf(session->sequence) != home) continue;
    if (oldest == nullptr || session->last_used < oldest->last_used) oldest = session;
  }
  if (oldest != nullptr) oldest->busy = oldest->unloading = true;
  return oldest;
}

bool SessionManager::UnloadOne(const Engine* home) {
  std::shared_ptr<LiveSession> session = TakeLeastRecentlyUsed(home);
  if (session == nullptr) return false;
  SessionLease lease(this, session);
  CaptureTail(lease);
  KeepInHostMemory(lease);
  lease.sequence() = nullptr;
  return true;
}

// The log already holds every token after the head, so that a capture which fails costs a replay at
// the session's next use and nothing else.
void SessionManager::CaptureTail(SessionLease& lease) {
  SessionJournal& journal = lease.journal();
  if (journal.tail().empty() || !journal.error().ok()) return;
  Mutation mutation;
  absl::Status status;
  auto image = engine_->Capture(lease.sequence(), journal.codec());
  status.Update(image.status());
  if (status.ok()) {
    status.Update(
        journal.StageCapture(*std::move(image), {}, &mutation, CaptureReason::kIdle).status());
  }
  if (status.ok()) status.Update(store_->CommitAndWait(std::move(mutation)));
  if (!status.ok()) {
    LogEvent(LogLevel::kWarning, "capture_failed",
             {{"session", lease.id()}, {"error", std::string(status.message())}});
  }
}

// Only what the library would give bit for bit: not where the head is kept in a lossy codec, or
// behind the session's tokens because its capture failed.
void SessionManager::KeepInHostMemory(SessionLease& lease) {
  if (!host_states_->enabled() || !lease.journal().error().ok()) return;
  const SessionRecord record = lease.journal().view().record;
  if (record.head_state.empty() || !lease.journal().tail().empty()) return;
  auto head = store_->GetState(record.tenant, record.head_state);
  if (!head.ok() || !IsWhole(*head) || head->codec != StateCodec::kExact) return;
  if (host_states_->Touch(*head)) return;  // kept already, by this session or another at this state
  LoadedState state;
  auto image = engine_->Capture(lease.sequence());
  if (!image.ok() || image->header.token_count != head->token_count) return;
  state.record = *std::move(head);
  state.image = *std::move(image);
  state.tokens = engine_->Tokens(lease.sequence());
  host_states_->KeepCaptured(std::move(state));
}

void SessionManager::UnloadAll() {
  while (std::shared_ptr<LiveSession> session = TakeLeastRecentlyUsed(nullptr)) {
    SessionLease lease(this, session);
    CaptureTail(lease);
    lease.sequence() = nullptr;
  }
}

}  // namespace anabranch
