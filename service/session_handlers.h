// The unary calls of Sessions that run the model or change a session. Each may block on the library
// and goes on asynchronously; `done` ends the call with `response` filled.
#pragma once

#include <functional>

#include "anabranch/v1/sessions.pb.h"
#include "service/service_context.h"

namespace anabranch {

using HandlerDone = std::function<void(absl::Status)>;

// Opens a session from nothing, a state, a ref or a full history. All or nothing: a session appears
// only when everything that was asked for is in it. States captured on the way stay, so that a
// retry after a crash reads only the rest.
void HandleCreateSession(ServiceContext* service, const CallPtr& call,
                         const v1::CreateSessionRequest* request,
                         v1::CreateSessionResponse* response, const HandlerDone& done);

// Captures a state and moves the ref, in one mutation.
void HandleCommit(ServiceContext* service, const CallPtr& call, const v1::CommitRequest* request,
                  v1::CommitResponse* response, const HandlerDone& done);

// Scores on a fork; the session is free again as soon as the fork exists.
void HandleScore(ServiceContext* service, const CallPtr& call, const v1::ScoreRequest* request,
                 v1::ScoreResponse* response, const HandlerDone& done);

// Opens sessions that go on from one point, in one mutation. Their sequences share the source's
// slot until they differ.
void HandleFork(ServiceContext* service, const CallPtr& call, const v1::ForkRequest* request,
                v1::ForkResponse* response, const HandlerDone& done);

// Puts a session on another base: core and auxiliary states (set_aux.cc). Runs the model only if
// tokens have to be replayed first.
void HandleSetAux(ServiceContext* service, const CallPtr& call, const v1::SetAuxRequest* request,
                  v1::SetAuxResponse* response, const HandlerDone& done);

// Moves a session back. Blocks on the library; the model runs at the session's next use.
absl::Status HandleRewind(ServiceContext* service, const Call& call,
                          const v1::RewindRequest& request, v1::RewindResponse* response);

// Changes a session's checkpoint policy.
absl::Status HandleUpdateSession(ServiceContext* service, const Call& call,
                                 const v1::UpdateSessionRequest& request, v1::Session* response);

absl::Status HandleCloseSession(ServiceContext* service, const Call& call,
                                const v1::CloseSessionRequest& request,
                                v1::CloseSessionResponse* response);

}  // namespace anabranch
