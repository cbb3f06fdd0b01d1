// Lets go of states in the background, as the server was told: expired ones, and the least valuable
// beyond a budget; and collects garbage, on schedule or when asked.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "service/retention_clock.h"
#include "statestore/state_store.h"

namespace anabranch {

struct JanitorOptions {
  EvictionBudget budget;
  absl::Duration sweep_every = absl::Minutes(1);   // for expired states
  absl::Duration collect_every = absl::Hours(24);  // zero: only when asked
};

// What was let go of since the server started.
struct JanitorTotals {
  SweepReport swept;  // sums; budget_unreachable as the last sweep left it
  std::optional<GarbageReport> last_collection;
  int64_t collections = 0;
};

class Janitor {
 public:
  // The store outlives this. Starts the thread.
  Janitor(StateStore* store, const JanitorOptions& options,
          RetentionClock clock = RetentionClock());
  // Ends what runs, a few states later.
  ~Janitor();

  // Blocks until it is done. ABORTED (GARBAGE_COLLECTION_RUNNING) while another one runs.
  absl::StatusOr<GarbageReport> CollectGarbage(GarbageOptions options);

  JanitorTotals totals() const;
  const JanitorOptions& options() const { return options_; }

 private:
  void Run();
  bool BudgetIsExceeded() const;
  void Sweep(absl::Time now);
  bool CollectionIsDue(absl::Duration now) const;
  bool stopping() const;

  StateStore* const store_;
  const JanitorOptions options_;
  RetentionClock clock_;  // of the thread

  mutable absl::Mutex mutex_;
  JanitorTotals totals_ ABSL_GUARDED_BY(mutex_);
  bool collecting_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration collected_at_ ABSL_GUARDED_BY(mutex_);  // of the steady clock
  int64_t freed_since_ ABSL_GUARDED_BY(mutex_) = 0;      // bytes, since the last collection
  std::string last_error_;                               // of the thread: told once

  std::thread thread_;  // last: starts when all else is ready
};

}  // namespace anabranch
