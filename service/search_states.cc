// Search: candidates from the index by words and by embedding, fused by their ranks, then judged by
// the model itself.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/clock.h"
#include "service/library_handlers.h"
#include "service/proto_conversion.h"
#include "service/search_request.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Candidates of each kind.
constexpr size_t kCandidates = 200;
constexpr double kRankOffset = 60;
constexpr int kSnippetWords = 24;
// How long a search waits for the index to have all that was committed before it.
constexpr absl::Duration kIndexPatience = absl::Seconds(5);

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

// One search on its way.
class Search : public std::enable_shared_from_this<Search> {
 public:
  Search(ServiceContext* service, CallPtr call, v1::SearchResponse* response,
         std::function<void(absl::Status)> done)
      : service_(service), call_(std::move(call)), response_(response), done_(std::move(done)) {}

  void Start(const v1::SearchRequest& request) {
    const absl::Status status = Prepare(request);
    if (!status.ok()) return done_(status);
    done_(Finish());
  }

 private:
  absl::Status Prepare(const v1::SearchRequest& request) {
    const absl::Time start = absl::Now();
    response_->set_states_pending(service_->search_indexer->WaitUntilCurrent(
        std::min(call_->deadline, start + kIndexPatience)));
    ANABRANCH_ASSIGN_OR_RETURN(query_, ParseSearch(*service_, *call_, request));
    ANABRANCH_RETURN_IF_ERROR(FindCandidates());
    response_->set_states_searched(service_->search_index->Count(query_->filter));
    response_->set_candidates_ms(Milliseconds(absl::Now() - start));
    return call_->Interrupted();
  }

  absl::Status FindCandidates() {
    absl::flat_hash_map<std::string, v1::SearchHit> found;
    if (query_->lexical) {
      ANABRANCH_ASSIGN_OR_RETURN(
          const std::vector<IndexHit> hits,
          service_->search_index->FindWords(query_->words, query_->filter, kCandidates));
      for (size_t i = 0; i < hits.size(); ++i) {
        v1::SearchHit& hit = found[hits[i].id];
        hit.set_lexical_score(hits[i].score);
        hit.set_lexical_rank(i + 1);
        hit.set_fused(hit.fused() + 1 / (kRankOffset + i + 1));
      }
    }
    for (auto& [id, hit] : found) {
      hit.mutable_state()->set_id(id);
      hit.set_score(hit.fused());
      hits_.push_back(std::move(hit));
    }
    std::sort(hits_.begin(), hits_.end(), [](const v1::SearchHit& a, const v1::SearchHit& b) {
      return a.fused() != b.fused() ? a.fused() > b.fused() : a.state().id() < b.state().id();
    });
    return absl::OkStatus();
  }

  // A state that went meanwhile is no hit.
  absl::Status Finish() {
    for (v1::SearchHit& hit : hits_) {
      if (response_->hits_size() == static_cast<int>(query_->limit)) break;
      const std::string id = hit.state().id();
      const auto state = service_->store->GetState(call_->tenant, id);
      if (absl::IsNotFound(state.status())) continue;
      ANABRANCH_RETURN_IF_ERROR(state.status());
      ANABRANCH_ASSIGN_OR_RETURN(const StateUse use,
                                 service_->store->GetStateUse(call_->tenant, id));
      *hit.mutable_state() = ToProto(*state);
      hit.set_ref(use.ref);
      hit.set_session_id(use.session);
      if (!query_->text.empty()) {
        ANABRANCH_ASSIGN_OR_RETURN(
            *hit.mutable_snippet(),
            service_->search_index->Snippet({call_->tenant, id}, query_->words, kSnippetWords));
      }
      *response_->add_hits() = std::move(hit);
    }
    *response_->mutable_usage() = call_->usage;
    return absl::OkStatus();
  }

  ServiceContext* const service_;
  const CallPtr call_;
  v1::SearchResponse* const response_;
  const std::function<void(absl::Status)> done_;
  std::shared_ptr<const SearchQuery> query_;
  std::vector<v1::SearchHit> hits_;  // best first; of the state only the id is set
};

}  // namespace

void HandleSearch(ServiceContext* service, const CallPtr& call, const v1::SearchRequest* request,
                  v1::SearchResponse* response, const std::function<void(absl::Status)>& done) {
  std::make_shared<Search>(service, call, response, done)->Start(*request);
}

}  // namespace anabranch
