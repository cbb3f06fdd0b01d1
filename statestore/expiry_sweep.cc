#include "statestore/expiry_sweep.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/key_schema.h"

namespace anabranch {
namespace {

// A commit's worth: other writers wait for no more than this.
constexpr size_t kStatesPerCommit = 16;

// The next entries whose time has come, after `from`.
absl::StatusOr<std::vector<std::string>> NextDue(const Database& database, const std::string& from,
                                                 absl::Time now) {
  std::vector<std::string> due;
  const std::string end = ExpiryKey(absl::ToUnixNanos(now), "", "");
  ANABRANCH_RETURN_IF_ERROR(Snapshot(database).Scan(
      Family::kTimeline, ExpiryPrefix(), from, [&](absl::string_view key, absl::string_view) {
        if (key >= end || due.size() == kStatesPerCommit) return false;
        if (key != from) due.emplace_back(key);
        return true;
      }));
  return due;
}

}  // namespace

absl::Status ExpireDue(const Database& database, StateStore& store, const SweepOptions& options,
                       SweepReport& report) {
  std::string from;
  for (;;) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> due,
                               NextDue(database, from, options.now));
    if (due.empty() || (options.keep_going && !options.keep_going())) return absl::OkStatus();
    Mutation mutation;
    mutation.effect = std::make_shared<MutationEffect>();
    const std::shared_ptr<MutationEffect> effect = mutation.effect;
    for (const std::string& key : due) {
      ANABRANCH_ASSIGN_OR_RETURN(const ExpiryEntry entry, ParseExpiryKey(key));
      mutation.operations.push_back(ExpireState{std::string(entry.tenant), std::string(entry.state),
                                                absl::FromUnixNanos(entry.unix_nanos), options.now,
                                                options.now + options.look_again});
    }
    ANABRANCH_RETURN_IF_ERROR(store.CommitAndWait(std::move(mutation)));
    ReachCrashPoint(CrashPoint::kSweepStep);
    report.expired += effect->deleted;
    report.expired_archived += effect->archived;
    report.freed_bytes -= effect->bytes;
    from = due.back();
  }
}

}  // namespace anabranch
