// A session the server works with: its journal, and the engine's sequence while it is loaded. A
// lease is the right to change it, one at a time.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "runtime/engine.h"
#include "service/session_journal.h"

namespace anabranch {

class SessionManager;

struct LiveSession {
  std::string tenant, id;
  // Set once before the first lease is given out.
  std::shared_ptr<SessionJournal> journal;
  // Only the lease's holder touches it. Null: not loaded.
  SequencePtr sequence;
  // Guarded by the manager's mutex.
  bool busy = false, loaded = false;
  bool unloading = false;  // busy, for the server's own sake: over in a moment
  absl::Time last_used;
};

// Gives the session back with Release, or when it is destroyed. A session whose writes failed, that
// was discarded or that holds no sequence is forgotten then, and read from the library at its next
// use. One thread at a time.
class SessionLease {
 public:
  SessionLease(SessionManager* manager, std::shared_ptr<LiveSession> session)
      : manager_(manager), session_(std::move(session)) {}
  ~SessionLease() { Release(); }
  SessionLease(const SessionLease&) = delete;
  SessionLease& operator=(const SessionLease&) = delete;

  SessionJournal& journal() { return *session_->journal; }
  std::shared_ptr<SessionJournal> shared_journal() { return session_->journal; }
  const std::string& tenant() const { return session_->tenant; }
  const std::string& id() const { return session_->id; }
  SequencePtr& sequence() { return session_->sequence; }
  void Discard() { discarded_ = true; }
  // Once released, the other members must not be used. Releasing again does nothing.
  void Release();

 private:
  SessionManager* const manager_;
  std::shared_ptr<LiveSession> session_;
  bool discarded_ = false;
};
using SessionLeasePtr = std::shared_ptr<SessionLease>;

}  // namespace anabranch
