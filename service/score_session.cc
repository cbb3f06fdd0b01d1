#include <memory>
#include <utility>
#include <vector>

#include "service/error_info.h"
#include "service/generate_request.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

void FillAnswer(const ServedModel& model, const v1::ScoreRequest& request,
                const std::vector<int32_t>& tokens, const std::vector<float>& logprobs,
                v1::ScoreResponse* response) {
  double sum = 0;
  for (size_t i = 0; i < logprobs.size(); ++i) {
    sum += logprobs[i];
    if (!request.per_token()) continue;
    *response->add_tokens() =
        ToTokenInfo(SampledToken{tokens[i], logprobs[i], {}}, /*logprobs=*/true, model);
  }
  response->set_logprob(sum);
  response->set_token_count(tokens.size());
}

// The content in tokens, checked against the session that it follows.
absl::StatusOr<std::vector<int32_t>> EncodeFor(const ServiceContext& service, SessionCall& session,
                                               const v1::ScoreRequest& request) {
  if (session.token_count() == 0) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "EMPTY_CONTEXT",
                           "the session has read nothing yet: nothing to score after");
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                             service.model->Encode(request.content(), session.tokens(),
                                                   service.limits.max_append_tokens, "content"));
  if (tokens.empty()) return InvalidField("content", "must not be empty");
  ANABRANCH_RETURN_IF_ERROR(session.CheckContext(tokens.size(), "content"));
  return tokens;
}

absl::StatusOr<SequencePtr> ForkOf(ServiceContext* service, SessionCall& session, int64_t tokens) {
  // The fork takes a slot of its own with its first token.
  ANABRANCH_RETURN_IF_ERROR(service->sessions->MakeRoom());
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr fork, service->engine->Fork(session.lease().sequence()));
  service->sessions->MakeWritable(fork, tokens);
  session.Release();
  return fork;
}

}  // namespace

void HandleScore(ServiceContext* service, const CallPtr& call, const v1::ScoreRequest* request,
                 v1::ScoreResponse* response, const HandlerDone& done) {
  auto session = std::make_shared<SessionCall>(service, call);
  const auto finish = [session, done](const absl::Status& status) {
    session->Release();
    done(status);
  };
  const absl::Status opened = session->Open(request->session_id(), 0);
  if (!opened.ok()) return finish(opened);
  session->Load([=](const absl::Status& loaded) {
    if (!loaded.ok()) return finish(loaded);
    auto encoded = EncodeFor(*service, *session, *request);
    if (!encoded.ok()) return finish(encoded.status());
    std::vector<int32_t> tokens = *std::move(encoded);
    auto fork = ForkOf(service, *session, tokens.size());
    if (!fork.ok()) return finish(fork.status());
    ScoreWork work;
    work.sequence = *std::move(fork);
    work.tokens = tokens;
    work.options = call->work_options();
    work.on_done = [=, tokens = std::move(tokens)](const absl::Status& status,
                                                   const WorkStats& stats,
                                                   const std::vector<float>& logprobs) {
      service->pool->Run([=] {
        call->usage.set_tokens_read(call->usage.tokens_read() + stats.tokens_read);
        call->usage.set_queue_ms(call->usage.queue_ms() +
                                 absl::ToDoubleMilliseconds(stats.queue_time));
        call->usage.set_compute_ms(call->usage.compute_ms() +
                                   absl::ToDoubleMilliseconds(stats.compute_time));
        const absl::Status why = call->Interrupted();
        if (!status.ok()) return finish(why.ok() ? status : why);
        FillAnswer(*service->model, *request, tokens, logprobs, response);
        *response->mutable_usage() = call->usage;
        finish(status);
      });
    };
    const absl::Status submitted = service->engine->Submit(std::move(work));
    if (!submitted.ok()) finish(submitted);
  });
}

}  // namespace anabranch
