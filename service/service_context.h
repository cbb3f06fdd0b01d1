// What every handler works with: one for each model that is served, in which all but engine, model,
// sessions and the layout of `storing` are the same. Plain pointers: the server owns all of it and
// outlives the calls.
#pragma once

#include <grpcpp/server_context.h>

#include <algorithm>
#include <atomic>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/engine.h"
#include "service/answer_book.h"
#include "service/call_tracker.h"
#include "service/janitor.h"
#include "service/limits.h"
#include "service/search_indexer.h"
#include "service/served_model.h"
#include "service/session_manager.h"
#include "service/state_heat.h"
#include "service/state_storing.h"
#include "service/worker_pool.h"
#include "statestore/state_store.h"

namespace anabranch {

class ImportStaging;
class ModelRouter;
class Scrubber;

struct ServiceContext {
  // The parts.
  const ModelRouter* router = nullptr;  // to the contexts of all models
  StateStore* store = nullptr;
  Engine* engine = nullptr;
  const ServedModel* model = nullptr;
  SessionManager* sessions = nullptr;
  AnswerBook* answers = nullptr;
  StateHeat* heat = nullptr;
  SearchIndex* search_index = nullptr;
  SearchIndexer* search_indexer = nullptr;
  WorkerPool* pool = nullptr;
  Janitor* janitor = nullptr;
  CallTracker* calls = nullptr;
  Metrics* metrics = nullptr;
  ImportStaging* imports = nullptr;
  Scrubber* scrubber = nullptr;
  std::atomic<bool>* backup_running = nullptr;
  // What the server was told.
  Limits limits;
  Quotas quotas;  // of each tenant
  absl::Duration default_expiry = absl::InfiniteDuration();
  int64_t checkpoint_every = 2048;
  StateStoring storing;
  std::string library_directory;
  std::string backup_root;  // backups are made below it; empty: none are
  absl::Time start_time;    // of the server
};

// The tenant a connection belongs to. One for now; never taken from a request.
inline std::string TenantOf(const grpc::ServerContextBase& /*context*/) { return "default"; }

// The client's deadline, at most `cap` from now.
inline absl::Time CappedDeadline(const grpc::ServerContextBase& context, absl::Duration cap) {
  return std::min(absl::FromChrono(context.deadline()), absl::Now() + cap);
}

}  // namespace anabranch
