#include "service/branch_keeper.h"

#include <algorithm>
#include <utility>

#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

std::string StateOf(BranchRun& branch) {
  return branch.session().lease().journal().view().record.head_state;
}

}  // namespace

// With the policy KEEP the order is that of the request; BEST falls back on it.
bool BranchKeeper::Better(const BranchRun& a, const BranchRun& b) const {
  if (plan_->policy == v1::DELEGATE_POLICY_BEST && a.score() != b.score()) {
    return a.score() > b.score();
  }
  return a.number() < b.number();
}

// One at a time: branches that said the same share a state, which must not be removed for the one
// while it is stored for the other.
absl::Status BranchKeeper::Offer(const std::shared_ptr<BranchRun>& branch) {
  if (plan_->keep == 0) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  const bool full = kept_.size() == static_cast<size_t>(plan_->keep);
  if (full && Better(*kept_.back(), *branch)) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(Store(*branch));
  kept_.insert(std::upper_bound(kept_.begin(), kept_.end(), branch,
                                [this](const auto& a, const auto& b) { return Better(*a, *b); }),
               branch);
  if (!full) return absl::OkStatus();
  const std::shared_ptr<BranchRun> worst = std::move(kept_.back());
  kept_.pop_back();
  Remove(StateOf(*worst));
  return absl::OkStatus();
}

absl::Status BranchKeeper::Store(BranchRun& branch) {
  Mutation mutation;
  ANABRANCH_ASSIGN_OR_RETURN(const auto state, branch.session().StageCapture({}, &mutation));
  if (!state) return absl::OkStatus();  // it stands where a state stands already
  const bool known = store_->GetState(state->tenant, state->id).ok();
  ANABRANCH_RETURN_IF_ERROR(WriteError(store_->CommitAndWait(std::move(mutation))));
  if (!known) added_.insert(state->id);
  return absl::OkStatus();
}

// A state that something else began to need meanwhile stays.
void BranchKeeper::Remove(const std::string& state) {
  if (!added_.contains(state)) return;
  for (const auto& branch : kept_) {
    if (StateOf(*branch) == state) return;
  }
  added_.erase(state);
  Mutation mutation;
  mutation.operations.push_back(DeleteState{tenant_, state});
  store_->CommitAndWait(std::move(mutation)).IgnoreError();
}

void BranchKeeper::StageSessions(Mutation* mutation, v1::DelegateDone* done) {
  absl::MutexLock lock(&mutex_);
  for (const auto& branch : kept_) {
    branch->session().lease().journal().StageRecord(mutation);
    v1::KeptBranch* kept = done->add_kept();
    kept->set_branch(branch->number());
    *kept->mutable_session() = branch->Session();
  }
}

void BranchKeeper::Abandon() {
  absl::MutexLock lock(&mutex_);
  kept_.clear();
  const std::vector<std::string> states(added_.begin(), added_.end());
  for (const std::string& state : states) Remove(state);
}

}  // namespace anabranch
