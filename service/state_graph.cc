// GetGraph: states with all their parents, near the source or of the whole library.
#include <algorithm>
#include <deque>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/log_entry.h"
#include "service/names.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using States = absl::btree_map<std::string, StateRecord>;

// Collects states around a source, the nearest first.
class Walk {
 public:
  Walk(StateStore& store, std::string tenant, size_t max_states)
      : store_(store), tenant_(std::move(tenant)), max_states_(max_states) {}

  // Goes up from `id`, and with `down` also from every state that it meets to what goes on there.
  absl::Status From(const std::string& id, bool down) {
    std::deque<std::string> open = {id};
    absl::flat_hash_set<std::string> seen = {id};
    const auto push = [&](const std::vector<std::string>& ids) {
      for (const std::string& each : ids) {
        if (seen.insert(each).second) open.push_back(each);
      }
    };
    for (; !open.empty(); open.pop_front()) {
      ANABRANCH_ASSIGN_OR_RETURN(StateRecord state, store_.GetState(tenant_, open.front()));
      if (!state.thinned && whole_.size() == max_states_) {
        truncated_ = true;
        return absl::OkStatus();
      }
      push(state.parents);
      if (down) {
        ANABRANCH_ASSIGN_OR_RETURN(const StateUsers users, store_.GetUsers(tenant_, state.id));
        push(users.children);
      }
      (state.thinned ? thinned_ : whole_).emplace(state.id, std::move(state));
    }
    return absl::OkStatus();
  }

  // The newest of the library.
  absl::Status Everything() {
    std::deque<StateRecord> newest;
    PageRequest page{1000, ""};
    do {
      ANABRANCH_ASSIGN_OR_RETURN(auto listed, store_.ListStates(tenant_, StateFilter(), page));
      for (StateRecord& state : listed.items) {
        newest.push_back(std::move(state));
        if (newest.size() <= max_states_) continue;
        newest.pop_front();
        truncated_ = true;
      }
      page.token = listed.next;
    } while (!page.token.empty());
    for (StateRecord& state : newest) whole_.emplace(state.id, std::move(state));
    return absl::OkStatus();
  }

  // For each parent the nearest state that is not thinned.
  absl::StatusOr<std::vector<std::string>> Bases(const StateRecord& state) {
    std::vector<std::string> bases;
    for (std::string id : state.parents) {
      while (!id.empty() && !whole_.contains(id)) {
        ANABRANCH_ASSIGN_OR_RETURN(const StateRecord* parent, Thinned(id));
        if (parent == nullptr) break;
        id = parent->parents.empty() ? "" : parent->parents.front();
      }
      if (!id.empty()) bases.push_back(id);
    }
    return bases;
  }

  const States& states() const { return whole_; }
  bool truncated() const { return truncated_; }

 private:
  // Null: it is whole, only left out of this graph.
  absl::StatusOr<const StateRecord*> Thinned(const std::string& id) {
    auto found = thinned_.find(id);
    if (found == thinned_.end()) {
      ANABRANCH_ASSIGN_OR_RETURN(StateRecord state, store_.GetState(tenant_, id));
      if (!state.thinned) return static_cast<const StateRecord*>(nullptr);
      found = thinned_.emplace(id, std::move(state)).first;
    }
    return &found->second;
  }

  StateStore& store_;
  const std::string tenant_;
  const size_t max_states_;
  States whole_, thinned_;
  bool truncated_ = false;
};

// Children before parents, otherwise the newest first; equal graphs in equal order.
std::vector<std::string> Order(
    const States& states, const absl::flat_hash_map<std::string, std::vector<std::string>>& bases) {
  absl::flat_hash_map<std::string, int> children;
  for (const auto& [id, ids] : bases) {
    for (const std::string& base : ids) ++children[base];
  }
  using Ready = std::pair<absl::Time, std::string>;
  std::priority_queue<Ready> ready;
  for (const auto& [id, state] : states) {
    if (children[id] == 0) ready.emplace(state.created, id);
  }
  std::vector<std::string> order;
  while (!ready.empty()) {
    const std::string id = ready.top().second;
    ready.pop();
    order.push_back(id);
    for (const std::string& base : bases.at(id)) {
      const auto state = states.find(base);
      if (state != states.end() && --children[base] == 0)
        ready.emplace(state->second.created, base);
    }
  }
  return order;
}

absl::Status Collect(const ServiceContext& service, const Call& call,
                     const v1::GetGraphRequest& request, Walk* walk) {
  switch (request.source_case()) {
    case v1::GetGraphRequest::kStateId: {
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                                 ResolveState(*service.store, call.tenant, request.state_id()));
      return walk->From(state.id, !request.ancestors_only());
    }
    case v1::GetGraphRequest::kSessionId: {
      ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
      ANABRANCH_ASSIGN_OR_RETURN(const SessionView view,
                                 service.sessions->View(call.tenant, request.session_id()));
      if (view.record.head_state.empty()) return absl::OkStatus();
      return walk->From(view.record.head_state, !request.ancestors_only());
    }
    case v1::GetGraphRequest::SOURCE_NOT_SET:
      break;
  }
  return walk->Everything();
}

}  // namespace

absl::Status HandleGetGraph(const ServiceContext& service, const Call& call,
                            const v1::GetGraphRequest& request, v1::GetGraphResponse* response) {
  if (request.max_states() < 0 || request.max_states() > kMaxGraphStates) {
    return InvalidField("max_states", absl::StrCat("must be 0 to ", kMaxGraphStates));
  }
  Walk walk(*service.store, call.tenant,
            request.max_states() == 0 ? kDefaultGraphStates : request.max_states());
  ANABRANCH_RETURN_IF_ERROR(Collect(service, call, request, &walk));
  absl::flat_hash_map<std::string, std::vector<std::string>> bases;
  for (const auto& [id, state] : walk.states()) {
    ANABRANCH_ASSIGN_OR_RETURN(bases[id], walk.Bases(state));
  }
  for (const std::string& id : Order(walk.states(), bases)) {
    v1::LogEntry* entry = response->add_entries();
    ANABRANCH_ASSIGN_OR_RETURN(*entry, MakeLogEntry(*service.store, walk.states().at(id)));
    entry->mutable_base_ids()->Assign(bases.at(id).begin(), bases.at(id).end());
  }
  response->set_truncated(walk.truncated());
  return absl::OkStatus();
}

}  // namespace anabranch
