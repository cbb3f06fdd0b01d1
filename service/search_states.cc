// Search: candidates from the index by words and by embedding, fused by their ranks, then judged by
// the model itself.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/answer_support.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/proto_conversion.h"
#include "service/search_request.h"
#include "service/state_judge.h"
#include "statestore/base/status_macros.h"
#include "statestore/search_words.h"

namespace anabranch {
namespace {

// Candidates of each kind.
constexpr size_t kCandidates = 200;
constexpr double kRankOffset = 60;
// The mean of a language model's inner layer is a weak hint at who a question is about, words are a
// strong one. It must not push what the words found out of the model's sight; where words find
// nothing it still decides.
constexpr double kWordsWeight = 1, kEmbeddingWeight = 0.02;
constexpr int kSnippetWords = 24;
// A word of so many states says nothing more about one of them, and is not counted further.
constexpr int64_t kCommonWord = 10000;
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
    // The words alone need no model.
    if (query_->text.empty() || (!query_->embedding && query_->rerank == 0)) return Rank();
    judge_ = std::make_shared<StateJudge>(service_, call_);
    judge_->ReadQuery(query_->text, [self = shared_from_this()](const absl::Status& read) {
      if (!read.ok()) return self->End(read);
      self->Rank();
    });
  }

 private:
  absl::Status Prepare(const v1::SearchRequest& request) {
    response_->set_states_pending(service_->search_indexer->WaitUntilCurrent(
        std::min(call_->deadline, start_ + kIndexPatience)));
    ANABRANCH_ASSIGN_OR_RETURN(query_, ParseSearch(*service_, *call_, request));
    response_->set_states_searched(service_->search_index->Count(query_->filter));
    return call_->Interrupted();
  }

  // Orders the candidates, and lets the model judge the best.
  void Rank() {
    const absl::Status status = OfIndex(FindCandidates());
    if (!status.ok()) return End(status);
    const absl::Time found = absl::Now();
    response_->set_candidates_ms(Milliseconds(found - start_));
    if (query_->rerank == 0) return End(Answer());
    std::vector<std::string> ids;
    for (const v1::SearchHit& hit : hits_) {
      if (ids.size() < static_cast<size_t>(query_->rerank)) ids.push_back(hit.state().id());
    }
    judge_->Judge(std::move(ids), [self = shared_from_this(), found](absl::Status judged) {
      if (judged.ok()) judged = self->OfIndex(self->AddVerdicts());
      if (judged.ok()) {
        self->response_->set_rerank_ms(Milliseconds(absl::Now() - found));
        judged = self->Answer();
      }
      self->End(judged);
    });
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
        hit.set_fused(hit.fused() + kWordsWeight / (kRankOffset + i + 1));
      }
    }
    if (query_->embedding) {
      const std::vector<IndexHit> hits = service_->search_index->FindNearest(
          judge_ == nullptr ? query_->like : judge_->embedding(), query_->filter, kCandidates);
      for (size_t i = 0; i < hits.size(); ++i) {
        v1::SearchHit& hit = found[hits[i].id];
        hit.set_embedding_cosine(hits[i].score);
        hit.set_embedding_rank(i + 1);
        hit.set_fused(hit.fused() + kEmbeddingWeight / (kRankOffset + i + 1));
      }
    }
    for (auto& [id, hit] : found) {
      hit.mutable_state()->set_id(id);
      hit.set_score(hit.fused());
      hits_.push_back(std::move(hit));
    }
    Sort();
    return absl::OkStatus();
  }

  absl::Status AddVerdicts() {
    ANABRANCH_ASSIGN_OR_RETURN(const WordWeights weights, WeighWords());
    for (v1::SearchHit& hit : hits_) {
      const auto verdict = judge_->verdicts().find(hit.state().id());
      if (verdict == judge_->verdicts().end()) continue;
      const std::optional<std::string>& answer = verdict->second.answer;
      double support = 1;
      if (answer.has_value()) {
        ANABRANCH_ASSIGN_OR_RETURN(const std::string text,
                                   service_->search_index->Text({call_->tenant, hit.state().id()}));
        support = AnswerSupport(query_->text, *answer, text, weights);
      }
      hit.set_reranked(true);
      hit.set_pmi(verdict->second.pmi);
      hit.set_answer_gain(verdict->second.answer_gain);
      hit.set_entropy(verdict->second.entropy);
      hit.set_score(hit.pmi() + support * hit.answer_gain());
    }
    Sort();
    return absl::OkStatus();
  }

  // The rarer, the more. A word that no state has read counts most: an answer with it was made up.
  absl::StatusOr<WordWeights> WeighWords() const {
    std::string said = query_->text;
    for (const auto& [id, verdict] : judge_->verdicts()) {
      absl::StrAppend(&said, "\n", verdict.answer.value_or(std::string()));
    }
    IndexFilter all;
    all.tenant = call_->tenant;
    const int64_t states = std::min(service_->search_index->Count(all), kCommonWord);
    WordWeights weights;
    for (const std::string& word : WordsOf(said)) {
      ANABRANCH_ASSIGN_OR_RETURN(
          const int64_t with, service_->search_index->CountWith(call_->tenant, word, kCommonWord));
      const double rarity = (static_cast<double>(states) + 1) / (static_cast<double>(with) + 0.5);
      weights[word] = std::max(std::log(rarity), 0.0);
    }
    return weights;
  }

  void Sort() {
    std::sort(hits_.begin(), hits_.end(), [](const v1::SearchHit& a, const v1::SearchHit& b) {
      if (a.reranked() != b.reranked()) return a.reranked();
      return a.score() != b.score() ? a.score() > b.score() : a.state().id() < b.state().id();
    });
  }

  // What the index answered; a damaged one is built anew.
  absl::Status OfIndex(const absl::Status& status) {
    if (!absl::IsDataLoss(status)) return status;
    service_->search_indexer->Rebuild();
    return ErrorWithReason(
        absl::StatusCode::kUnavailable, "INDEX_REBUILDING",
        "the search index was damaged and is being built anew: retry in a moment");
  }

  // A call that was stopped says why in the same words wherever it was stopped.
  void End(const absl::Status& status) {
    const absl::Status why = status.ok() ? status : call_->Interrupted();
    done_(why.ok() ? status : why);
  }

  // A state that went meanwhile is no hit.
  absl::Status Answer() {
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
        // For show: what was found stands without it.
        const StateName name = {call_->tenant, id};
        hit.set_snippet(service_->search_index->Snippet(name, query_->words, kSnippetWords)
                            .value_or(std::string()));
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
  const absl::Time start_ = absl::Now();
  std::shared_ptr<const SearchQuery> query_;
  std::shared_ptr<StateJudge> judge_;  // null: nothing is asked of the model
  std::vector<v1::SearchHit> hits_;    // best first; of the state only the id is set
};

}  // namespace

void HandleSearch(ServiceContext* service, const CallPtr& call, const v1::SearchRequest* request,
                  v1::SearchResponse* response, const std::function<void(absl::Status)>& done) {
  std::make_shared<Search>(service, call, response, done)->Start(*request);
}

}  // namespace anabranch
