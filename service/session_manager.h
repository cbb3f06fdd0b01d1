// Joins engine and library: which sessions are live, who works on them, how a stored session gets
// into a slot and how an idle one leaves it.
//
// Thread rule: every member may be called from any thread. Members that say so block on the library
// and belong on the worker pool.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "anabranch/v1/resources.pb.h"
#include "runtime/engine.h"
#include "service/host_states.h"
#include "service/live_session.h"
#include "service/metrics.h"
#include "service/state_heat.h"
#include "service/state_storing.h"
#include "service/worker_pool.h"
#include "statestore/state_store.h"

namespace anabranch {

class SessionManager {
 public:
  // All outlive this.
  SessionManager(StateStore* store, Engine* engine, WorkerPool* pool, Metrics* metrics,
                 const StateStoring* storing, StateHeat* heat, HostStates* host_states)
      : store_(store),
        engine_(engine),
        pool_(pool),
        metrics_(metrics),
        storing_(storing),
        heat_(heat),
        host_states_(host_states) {}

  // The right to change a stored session. NOT_FOUND; ABORTED (SESSION_BUSY) while another call has
  // it. One that is just being unloaded is waited for, at most kUnloadPatience. Blocks.
  static constexpr absl::Duration kUnloadPatience = absl::Seconds(30);
  absl::StatusOr<SessionLeasePtr> Acquire(const std::string& tenant, const std::string& id);
  // The same for a session that is not in the library yet, with `tail` after its head state.
  // ALREADY_EXISTS. Blocks.
  absl::StatusOr<SessionLeasePtr> AcquireNew(const SessionRecord& record,
                                             std::vector<int32_t> tail = {});

  // Whether the session is loaded or at work here; one that is stored may be neither.
  bool Has(const std::string& tenant, const std::string& id);
  // What is known of a session, without a lease. NOT_FOUND. Blocks.
  absl::StatusOr<SessionView> View(const std::string& tenant, const std::string& id);
  // All tokens of a session: of its head state, then those after it. Blocks.
  absl::StatusOr<std::vector<int32_t>> Tokens(const std::string& tenant, const std::string& id);
  // Completes a record of a listing. Blocks.
  absl::StatusOr<SessionView> ViewOf(const SessionRecord& record);

  // Brings the session into a slot if it is not there: restores its head state, then replays the
  // tokens logged after it. Fills tokens_reused, tokens_replayed, bytes and times of `usage`, which
  // stays valid until `done` ran. Blocks while restoring; `done` runs on the pool or right here.
  void Load(const SessionLeasePtr& lease, const WorkOptions& options, v1::Usage* usage,
            const std::function<void(absl::Status)>& done);

  // Makes sure that so many slots are free, by unloading idle sessions. RESOURCE_EXHAUSTED
  // (SLOTS_EXHAUSTED) if too many are busy. Blocks.
  absl::Status MakeRoom(int32_t slots = 1);

  // Makes room for `tokens` more tokens of attention, likewise, as far as idle sessions can give
  // it. Blocks.
  void MakePages(int64_t tokens);
  // The same where the sequence lives, and room for its own copy of a slot that it shares. Blocks.
  void MakeWritable(const SequencePtr& sequence, int64_t tokens);

  // The right to replace the content of a state: until it is let go of, no session starts to go on
  // from the state, so none believes in blocks that are about to go. ABORTED (SESSION_BUSY) if one
  // whose head it is works just now; with `cold` also if one is loaded.
  using Hold = std::unique_ptr<void, std::function<void(void*)>>;
  absl::StatusOr<Hold> HoldForRecoding(const StateRecord& state, bool cold);

  // Captures and unloads every idle session: the end of a drain. Blocks.
  void UnloadAll();

 private:
  friend class SessionLease;
  using Key = std::pair<std::string, std::string>;

  std::shared_ptr<SessionJournal> LiveJournal(const std::string& tenant, const std::string& id,
                                              bool* busy, bool* loaded);
  void AwaitUnloading(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const std::shared_ptr<LiveSession>& session, bool discarded);
  std::shared_ptr<LiveSession> TakeLeastRecentlyUsed(const Engine* home);
  absl::StatusOr<std::shared_ptr<SessionJournal>> ReadJournal(const std::string& tenant,
                                                              const std::string& id);
  void AwaitRecoding(const std::string& tenant, const std::string& state);
  absl::StatusOr<SequencePtr> RestoreHead(SessionLease& lease, std::vector<int32_t>* unread,
                                          v1::Usage* usage);
  // Of the head state, as it is restored: from host memory or from the library.
  absl::StatusOr<std::shared_ptr<const LoadedState>> LoadHead(const StateRecord& head,
                                                              v1::Usage* usage);
  absl::StatusOr<SequencePtr> RestoreBase(const SessionRecord& session, const StateRecord& head,
                                          std::vector<int32_t>* unread, v1::Usage* usage);
  void Replay(const SessionLeasePtr& lease, SequencePtr sequence, std::vector<int32_t> unread,
              const WorkOptions& options, v1::Usage* usage,
              const std::function<void(absl::Status)>& done);
  absl::StatusOr<SequencePtr> WithRoom(
      absl::FunctionRef<absl::StatusOr<SequencePtr>()> make_sequence);
  // Of those that live in `home`; null: of all.
  bool UnloadOne(const Engine* home = nullptr);
  // What is done with a session before it leaves its slot: the state at its end goes to the
  // library, if it is not there, and into host memory for its next call.
  void CaptureTail(SessionLease& lease);
  void KeepInHostMemory(SessionLease& lease);

  StateStore* const store_;
  Engine* const engine_;
  WorkerPool* const pool_;
  Metrics* const metrics_;
  const StateStoring* const storing_;
  StateHeat* const heat_;
  HostStates* const host_states_;
  absl::Mutex mutex_;
  absl::flat_hash_set<Key> recoding_ ABSL_GUARDED_BY(mutex_);  // states, by tenant
  // Sessions that are loaded or busy.
  absl::flat_hash_map<Key, std::shared_ptr<LiveSession>> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
