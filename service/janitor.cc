#include "service/janitor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "service/error_info.h"
#include "service/logging.h"

namespace anabranch {
namespace {

// How often the budget is looked at; sweeps for expired states come less often.
constexpr absl::Duration kLookEvery = absl::Seconds(1);
// An expired state that something needs is looked at again after so many sweeps.
constexpr int kSweepsBeforeLookingAgain = 10;
// Sweeps that freed so much, and a quarter of what is left, bring a collection forward.
constexpr int64_t kMuchFreed = int64_t{256} << 20;

void AddTo(const SweepReport& more, SweepReport& sum) {
  sum.expired += more.expired;
  sum.expired_archived += more.expired_archived;
  sum.evicted += more.evicted;
  sum.deleted += more.deleted;
  sum.freed_bytes += more.freed_bytes;
  sum.budget_unreachable = more.budget_unreachable;
}

bool DidAnything(const SweepReport& report) {
  return report.expired + report.expired_archived + report.evicted + report.deleted > 0;
}

void LogCollection(const GarbageReport& report) {
  LogEvent(LogLevel::kInfo, "garbage_collected",
           {{"dry_run", report.dry_run},
            {"seconds", absl::ToDoubleSeconds(report.end - report.start)},
            {"stale_keys", report.stale_keys},
            {"orphaned_blocks", report.orphaned_blobs},
            {"orphaned_payloads", report.orphaned_payloads},
            {"dead_bytes_before", report.dead_bytes_before},
            {"dead_bytes_after", report.dead_bytes_after},
            {"disk_bytes_before", report.disk_bytes_before},
            {"disk_bytes_after", report.disk_bytes_after}});
}

}  // namespace

Janitor::Janitor(StateStore* store, const JanitorOptions& options, RetentionClock clock)
    : store_(store), options_(options), clock_(std::move(clock)), collected_at_(SteadyNow()) {
  thread_ = std::thread([this] { Run(); });
}

Janitor::~Janitor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

bool Janitor::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

JanitorTotals Janitor::totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

bool Janitor::BudgetIsExceeded() const {
  return options_.budget.high_bytes > 0 && store_->stats().state_bytes > options_.budget.high_bytes;
}

void Janitor::Run() {
  const absl::Duration pause = std::min(kLookEvery, options_.sweep_every);
  absl::Duration swept_at = -absl::InfiniteDuration();
  while (true) {
    const absl::Duration steady = SteadyNow();
    const absl::Time now = clock_.Now();
    if (steady - swept_at >= options_.sweep_every || BudgetIsExceeded()) {
      Sweep(now);
      swept_at = steady;
    }
    if (CollectionIsDue(steady)) CollectGarbage({}).status().IgnoreError();  // it is logged
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), pause)) return;
  }
}

void Janitor::Sweep(absl::Time now) {
  SweepOptions sweep;
  sweep.now = now;
  sweep.look_again = kSweepsBeforeLookingAgain * options_.sweep_every;
  sweep.budget = options_.budget;
  sweep.keep_going = [this] { return !stopping(); };
  const absl::StatusOr<SweepReport> report = store_->Sweep(sweep);
  if (!report.ok()) {
    // A library that is read-only or a full disk says the same every second.
    if (report.status().message() != last_error_) {
      last_error_ = std::string(report.status().message());
      LogEvent(LogLevel::kWarning, "retention_failed", {{"error", last_error_}});
    }
    return;
  }
  last_error_.clear();
  bool newly_unreachable = false;
  {
    absl::MutexLock lock(&mutex_);
    newly_unreachable = report->budget_unreachable && !totals_.swept.budget_unreachable;
    AddTo(*report, totals_.swept);
    freed_since_ += report->freed_bytes;
  }
  if (DidAnything(*report)) {
    LogEvent(LogLevel::kInfo, "retention",
             {{"expired", report->expired},
              {"expired_archived", report->expired_archived},
              {"evicted", report->evicted},
              {"deleted", report->deleted},
              {"freed_bytes", report->freed_bytes}});
  }
  if (newly_unreachable) {
    LogEvent(LogLevel::kWarning, "budget_unreachable",
             {{"budget_bytes", options_.budget.high_bytes},
              {"state_bytes", store_->stats().state_bytes},
              {"reason", "what is left is pinned, labelled, named, in use or branches"}});
  }
}

bool Janitor::CollectionIsDue(absl::Duration now) const {
  if (options_.collect_every <= absl::ZeroDuration() || store_->stats().read_only) return false;
  absl::MutexLock lock(&mutex_);
  if (collecting_) return false;
  const bool much = freed_since_ > kMuchFreed && freed_since_ > store_->stats().state_bytes / 4;
  return much || now - collected_at_ >= options_.collect_every;
}

absl::StatusOr<GarbageReport> Janitor::CollectGarbage(GarbageOptions options) {
  {
    absl::MutexLock lock(&mutex_);
    if (collecting_) {
      return ErrorWithReason(absl::StatusCode::kAborted, "GARBAGE_COLLECTION_RUNNING",
                             "another garbage collection is running: wait for its end");
    }
    collecting_ = true;
  }
  options.keep_going = [this, asked = std::move(options.keep_going)] {
    return !stopping() && (!asked || asked());
  };
  absl::StatusOr<GarbageReport> report = store_->CollectGarbage(options);
  if (report.ok()) {
    LogCollection(*report);
  } else {
    LogEvent(LogLevel::kWarning, "garbage_collection_failed",
             {{"error", std::string(report.status().message())}});
  }
  absl::MutexLock lock(&mutex_);
  collecting_ = false;
  // Also after a failure: the next one comes when it is due.
  if (!options.dry_run) {
    collected_at_ = SteadyNow();
    freed_since_ = 0;
  }
  if (report.ok()) {
    ++totals_.collections;
    totals_.last_collection = *report;
  }
  return report;
}

}  // namespace anabranch
