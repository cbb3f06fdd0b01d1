#include "service/select_state.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"
#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// States in slots at a time: batched by the engine, without taking all slots from sessions.
constexpr size_t kAtOnce = 8;

// Shared with the engine's thread.
struct Scoring {
  SequencePtr sequence;
  absl::Notification done;
  absl::Status status;
  WorkStats stats;
  std::vector<float> logprobs;
};

double Entropy(absl::Span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0, weighted = 0;
  for (float logit : logits) {
    const double weight = std::exp(logit - top);
    sum += weight;
    weighted += weight * (logit - top);
  }
  return std::log(sum) - weighted / sum;
}

absl::StatusOr<std::shared_ptr<Scoring>> Start(const ServiceContext& service, const Call& call,
                                               const v1::Content& query, const LoadedState& state) {
  ANABRANCH_ASSIGN_OR_RETURN(
      std::vector<int32_t> tokens,
      service.model->Encode(query, state.tokens, service.limits.max_append_tokens, "query"));
  if (tokens.empty()) return InvalidField("query", "holds no tokens");
  ANABRANCH_RETURN_IF_ERROR(service.sessions->MakeRoom());
  service.sessions->MakePages(static_cast<int64_t>(state.tokens.size() + tokens.size()));
  auto scoring = std::make_shared<Scoring>();
  ANABRANCH_ASSIGN_OR_RETURN(scoring->sequence, service.engine->Restore(state.image, state.tokens));
  ScoreWork work;
  work.sequence = scoring->sequence;
  work.tokens = std::move(tokens);
  work.options = call.work_options();
  work.on_done = [scoring](absl::Status status, const WorkStats& stats,
                           std::vector<float> logprobs) {
    scoring->status = std::move(status);
    scoring->stats = stats;
    scoring->logprobs = std::move(logprobs);
    scoring->done.Notify();
  };
  ANABRANCH_RETURN_IF_ERROR(service.engine->Submit(std::move(work)));
  return scoring;
}

absl::StatusOr<QueryScore> Finish(const ServiceContext& service, Scoring& scoring,
                                  v1::Usage* usage) {
  scoring.done.WaitForNotification();
  ANABRANCH_RETURN_IF_ERROR(scoring.status);
  usage->set_tokens_read(usage->tokens_read() + scoring.stats.tokens_read);
  usage->set_compute_ms(usage->compute_ms() +
                        absl::ToDoubleMilliseconds(scoring.stats.compute_time));
  QueryScore score;
  for (float logprob : scoring.logprobs) score.logprob += logprob;
  score.logprob /= static_cast<double>(scoring.logprobs.size());
  score.entropy = Entropy(service.engine->LastLogits(scoring.sequence));
  return score;
}

}  // namespace

absl::StatusOr<std::vector<QueryScore>> ScoreQuery(const ServiceContext& service, const Call& call,
                                                   const std::string& query,
                                                   const std::vector<LoadedState>& states,
                                                   v1::Usage* usage) {
  v1::Content content;
  content.set_text(query);
  if (service.model->chat() != nullptr) {
    v1::Message& message = *content.mutable_messages()->add_messages();
    message.set_role("user");
    message.set_text(query);
  }
  std::vector<QueryScore> scores;
  while (scores.size() < states.size()) {
    std::vector<std::shared_ptr<Scoring>> started;
    absl::Status status;
    const size_t end = std::min(scores.size() + kAtOnce, states.size());
    for (size_t k = scores.size(); k < end && status.ok(); ++k) {
      auto scoring = Start(service, call, content, states[k]);
      status = scoring.status();
      if (status.ok()) started.push_back(*std::move(scoring));
    }
    // Where slots or pages ran out, the next round goes on with what these give back.
    if (!status.ok() && (started.empty() || !absl::IsResourceExhausted(status))) return status;
    for (const auto& scoring : started) {
      ANABRANCH_ASSIGN_OR_RETURN(const QueryScore score, Finish(service, *scoring, usage));
      scores.push_back(score);
    }
    ANABRANCH_RETURN_IF_ERROR(call.Interrupted());
  }
  return scores;
}

size_t BestOf(const std::vector<QueryScore>& scores) {
  const auto best =
      std::max_element(scores.begin(), scores.end(), [](const QueryScore& a, const QueryScore& b) {
        return a.logprob != b.logprob ? a.logprob < b.logprob : a.entropy > b.entropy;
      });
  return best - scores.begin();
}

}  // namespace anabranch
