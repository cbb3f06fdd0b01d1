// A Delegate on its way: opens the source, runs the branches as slots allow, keeps what is to be
// kept, and ends.
//
// Thread rule: Start runs on the worker pool, once; everything else follows from it. The callbacks
// may run on any thread; nothing is called after `end`.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "anabranch/v1/sessions.pb.h"
#include "service/branch_keeper.h"
#include "service/branch_run.h"
#include "service/service_context.h"

namespace anabranch {

class Delegation : public std::enable_shared_from_this<Delegation> {
 public:
  struct Events {
    std::function<void(v1::DelegateResponse)> send;
    // The last message if the call ended well.
    std::function<void(absl::Status, std::optional<v1::DelegateResponse>)> end;
  };

  // `request` outlives this.
  Delegation(ServiceContext* service, CallPtr call, const v1::DelegateRequest* request,
             Events events);

  void Start();

 private:
  // Before the branches.
  absl::StatusOr<bool> Begin();
  absl::Status OpenSource();
  absl::Status TakeSource();
  // The branches.
  void Pump();
  std::shared_ptr<BranchRun> NextToRun() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom(const BranchRun& next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom();
  void RunBranch(const std::shared_ptr<BranchRun>& branch);
  void BranchStopped(const std::shared_ptr<BranchRun>& branch, const absl::Status& status);
  bool MustWait(const BranchRun& branch, const absl::Status& status);
  void PumpLater();
  void Conclude(const std::shared_ptr<BranchRun>& branch, const absl::Status& status);
  // After the branches.
  void Finish();
  void Fail(const absl::Status& status);
  void CloseBranches();

  ServiceContext* const service_;
  const CallPtr call_;
  const v1::DelegateRequest* const request_;
  const Events events_;
  DelegatePlan plan_;
  AnswerBook::Claim claim_;
  std::shared_ptr<SessionCall> leader_;  // of the source; gone once the source is taken
  bool leader_is_new_ = false;           // the source is a state: its session is a makeshift
  BranchSource source_;
  std::optional<BranchKeeper> keeper_;
  std::vector<std::shared_ptr<BranchRun>> branches_;

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<BranchRun>> waiting_ ABSL_GUARDED_BY(mutex_);
  int32_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t without_slot_ ABSL_GUARDED_BY(mutex_) = 0;     // of the running ones
  int64_t tokens_promised_ ABSL_GUARDED_BY(mutex_) = 0;  // to the running ones
  // Something ran out: nothing new starts until a branch has stopped, or a moment has passed.
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  // When a branch that nothing else of the call runs beside first got nothing.
  absl::Time stuck_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // Pump runs; it was called meanwhile; it has called Finish.
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false, pump_again_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  v1::DelegateResponse results_ ABSL_GUARDED_BY(mutex_);  // all of them, for the answer book
};

}  // namespace anabranch
