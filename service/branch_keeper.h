// Which branches of a Delegate stay, and their states while the others still run: stored when a
// branch ends, so that its slot is free for the next one, and deleted again if a better one comes
// or the call does not end well.
//
// Thread rule: every member may be called from any thread. Members block on the library.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "service/branch_run.h"

namespace anabranch {

class BranchKeeper {
 public:
  BranchKeeper(StateStore* store, std::string tenant, const DelegatePlan* plan)
      : store_(store), tenant_(std::move(tenant)), plan_(plan) {}

  // A branch ended well: keeps it if it belongs to those that stay, so far.
  absl::Status Offer(const std::shared_ptr<BranchRun>& branch);
  // Adds the sessions of those that stay to `mutation`, and to `done`.
  void StageSessions(Mutation* mutation, v1::DelegateDone* done);
  // The call did not end well: nothing stays.
  void Abandon();

 private:
  bool Better(const BranchRun& a, const BranchRun& b) const;
  absl::Status Store(BranchRun& branch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Remove(const std::string& state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  StateStore* const store_;
  const std::string tenant_;
  const DelegatePlan* const plan_;
  absl::Mutex mutex_;
  std::vector<std::shared_ptr<BranchRun>> kept_ ABSL_GUARDED_BY(mutex_);  // best first
  // States that were not in the library before.
  absl::flat_hash_set<std::string> added_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
