#include "statestore/eviction.h"

#include <algorithm>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"
#include "statestore/state_need.h"

namespace anabranch {
namespace {

constexpr size_t kRecordsPerSnapshot = 256;
constexpr size_t kMaxCandidates = 1 << 18;
constexpr size_t kStatesPerCommit = 8;
// States without content in a row that are walked to find the one that a replay would start from.
constexpr int kMaxWalk = 64;

struct Candidate {
  StateName name;
  double last_used = 0;   // seconds since 1970
  double efficiency = 0;  // tokens that it saves per byte
  double score = 0;
  bool rescored = false;
};

struct Lowest {
  bool operator()(const Candidate& a, const Candidate& b) const { return a.score > b.score; }
};

struct Ranking {
  std::vector<Candidate> whole;                            // may be archived
  std::vector<std::pair<absl::Time, StateName>> archived;  // may be deleted
  double oldest = 0, newest = 0, best_efficiency = 0;

  double Score(const Candidate& candidate, double alpha) const {
    const double range = newest - oldest;
    const double recency = range > 0 ? (candidate.last_used - oldest) / range : 1;
    const double efficiency =
        best_efficiency > 0 ? std::min(1.0, candidate.efficiency / best_efficiency) : 0;
    return recency + alpha * efficiency;
  }
};

// Tokens that would be read again without the state, per byte of it.
absl::StatusOr<double> Efficiency(const KeyValueReader& reader, const StateRecord& record) {
  int64_t kept_tokens = 0;
  StateRecord state = record;
  for (int i = 0; i < kMaxWalk && !state.parents.empty(); ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(StoredState parent,
                               ReadState(reader, record.tenant, state.parents.front()));
    if (IsWhole(parent.record)) {
      kept_tokens = parent.record.token_count;
      break;
    }
    state = std::move(parent.record);
  }
  const double bytes = static_cast<double>(record.payload_bytes + record.blob_bytes + 1);
  return static_cast<double>(record.token_count - kept_tokens) / bytes;
}

// Damaged records and lineages are nobody's candidates.
absl::Status Consider(const Snapshot& snapshot, const RecentUses& uses, const StateName& name,
                      Ranking& ranking) {
  const absl::StatusOr<StoredState> state = ReadState(snapshot, name.tenant, name.id);
  if (!state.ok()) return absl::OkStatus();
  const StateRecord& record = state->record;
  if (record.pinned || !record.labels.empty()) return absl::OkStatus();
  if (record.thinned) return absl::OkStatus();
  const absl::StatusOr<StateNeed> need = NeedOf(snapshot, record);
  if (!need.ok()) return absl::IsDataLoss(need.status()) ? absl::OkStatus() : need.status();
  if (!IsWhole(record)) {
    if (!need->any()) ranking.archived.emplace_back(record.created, name);
    return absl::OkStatus();
  }
  if (!need->tokens_only() || need->children > 1) return absl::OkStatus();
  const absl::StatusOr<double> efficiency = Efficiency(snapshot, record);
  if (!efficiency.ok()) return absl::OkStatus();
  const absl::Time used = std::max(record.created, uses.Last(NamedKey(name.tenant, name.id)));
  ranking.whole.push_back(
      {name, absl::ToDoubleSeconds(used - absl::UnixEpoch()), *efficiency, 0, false});
  return absl::OkStatus();
}

// Of very many, the ones used last cannot be among those that go first.
void Bound(Ranking& ranking) {
  if (ranking.whole.size() <= kMaxCandidates) return;
  const auto middle = ranking.whole.begin() + kMaxCandidates / 2;
  std::nth_element(
      ranking.whole.begin(), middle, ranking.whole.end(),
      [](const Candidate& a, const Candidate& b) { return a.last_used < b.last_used; });
  ranking.whole.erase(middle, ranking.whole.end());
}

bool Stopped(const SweepOptions& options) { return options.keep_going && !options.keep_going(); }

absl::StatusOr<Ranking> Rank(const Database& database, const RecentUses& uses,
                             const SweepOptions& options) {
  Ranking ranking;
  std::string from;
  for (bool more = true; more && !Stopped(options);) {
    more = false;
    const Snapshot snapshot(database);
    std::vector<StateName> names;
    ANABRANCH_RETURN_IF_ERROR(
        snapshot.Scan(Family::kStates, "", from, [&](absl::string_view key, absl::string_view) {
          absl::string_view tenant, id;
          if (names.size() == kRecordsPerSnapshot) {
            from = std::string(key);
            more = true;
            return false;
          }
          if (StateOfKey(Family::kStates, key, &tenant, &id)) {
            names.push_back({std::string(tenant), std::string(id)});
          }
          return true;
        }));
    for (const StateName& name : names) {
      ANABRANCH_RETURN_IF_ERROR(Consider(snapshot, uses, name, ranking));
    }
    Bound(ranking);
  }
  for (const Candidate& each : ranking.whole) {
    if (ranking.newest == 0) ranking.oldest = each.last_used;
    ranking.oldest = std::min(ranking.oldest, each.last_used);
    ranking.newest = std::max(ranking.newest, each.last_used);
    ranking.best_efficiency = std::max(ranking.best_efficiency, each.efficiency);
  }
  for (Candidate& each : ranking.whole) each.score = ranking.Score(each, options.budget.alpha);
  return ranking;
}

// Runs one commit; `count` gets what it did to how many states.
template <typename Operation>
absl::Status CommitAll(StateStore& store, const std::vector<StateName>& states,
                       int64_t MutationEffect::*what, int64_t& count, SweepReport& report) {
  Mutation mutation;
  mutation.effect = std::make_shared<MutationEffect>();
  const std::shared_ptr<MutationEffect> effect = mutation.effect;
  for (const StateName& state : states) {
    mutation.operations.push_back(Operation{state.tenant, state.id});
  }
  ANABRANCH_RETURN_IF_ERROR(store.CommitAndWait(std::move(mutation)));
  ReachCrashPoint(CrashPoint::kEvictionStep);
  count += (*effect).*what;
  report.freed_bytes -= effect->bytes;
  return absl::OkStatus();
}

bool OverBudget(const StateStore& store, const SweepOptions& options) {
  return store.stats().state_bytes > options.budget.low_bytes;
}

using Queue = std::priority_queue<Candidate, std::vector<Candidate>, Lowest>;

// An archived parent makes what follows it worth more: each is scored again when its turn comes,
// and has to wait if others are worth less then.
// No more than `wanted_bytes` ask for.
absl::StatusOr<std::vector<StateName>> TakeLeastValuable(const Database& database,
                                                         const Ranking& ranking, double alpha,
                                                         int64_t wanted_bytes, Queue& queue) {
  std::vector<StateName> batch;
  const Snapshot snapshot(database);
  while (!queue.empty() && batch.size() < kStatesPerCommit && wanted_bytes > 0) {
    Candidate next = queue.top();
    queue.pop();
    const auto state = ReadState(snapshot, next.name.tenant, next.name.id);
    if (!state.ok()) continue;
    const absl::StatusOr<double> efficiency = Efficiency(snapshot, state->record);
    if (!efficiency.ok()) continue;
    next.efficiency = *efficiency;
    next.score = ranking.Score(next, alpha);
    if (!next.rescored && !queue.empty() && next.score > queue.top().score) {
      next.rescored = true;
      queue.push(std::move(next));
    } else {
      batch.push_back(next.name);
      wanted_bytes -= static_cast<int64_t>(state->record.payload_bytes);
    }
  }
  return batch;
}

absl::Status ArchiveLeastValuable(const Database& database, StateStore& store, Ranking& ranking,
                                  const SweepOptions& options, SweepReport& report) {
  Queue queue(Lowest(), std::move(ranking.whole));
  while (!queue.empty() && OverBudget(store, options) && !Stopped(options)) {
    ANABRANCH_ASSIGN_OR_RETURN(
        const std::vector<StateName> batch,
        TakeLeastValuable(database, ranking, options.budget.alpha,
                          store.stats().state_bytes - options.budget.low_bytes, queue));
    ANABRANCH_RETURN_IF_ERROR(
        CommitAll<EvictState>(store, batch, &MutationEffect::archived, report.evicted, report));
  }
  return absl::OkStatus();
}

absl::Status DeleteOldestArchived(StateStore& store, Ranking& ranking, const SweepOptions& options,
                                  SweepReport& report) {
  std::sort(ranking.archived.begin(), ranking.archived.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < ranking.archived.size(); i += kStatesPerCommit) {
    if (!OverBudget(store, options) || Stopped(options)) return absl::OkStatus();
    std::vector<StateName> batch;
    for (size_t j = i; j < std::min(i + kStatesPerCommit, ranking.archived.size()); ++j) {
      batch.push_back(ranking.archived[j].second);
    }
    ANABRANCH_RETURN_IF_ERROR(
        CommitAll<DeleteArchived>(store, batch, &MutationEffect::deleted, report.deleted, report));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Evict(const Database& database, StateStore& store, const RecentUses& uses,
                   const SweepOptions& options, SweepReport& report) {
  if (options.budget.high_bytes <= 0) return absl::OkStatus();
  if (store.stats().state_bytes <= options.budget.high_bytes) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(Ranking ranking, Rank(database, uses, options));
  ReachCrashPoint(CrashPoint::kEvictionRanked);
  ANABRANCH_RETURN_IF_ERROR(ArchiveLeastValuable(database, store, ranking, options, report));
  ANABRANCH_RETURN_IF_ERROR(DeleteOldestArchived(store, ranking, options, report));
  report.budget_unreachable = OverBudget(store, options) && !Stopped(options);
  return absl::OkStatus();
}

}  // namespace anabranch
