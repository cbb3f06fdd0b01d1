// The frame of every call that answers with a state: one commit keeps it if it is new, moves the
// ref and remembers the answer. A request has ref, expected_ref_state_id and request_id; a response
// state and ref.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "runtime/state_image.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/service_context.h"
#include "service/state_storing.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

// What a computed state is, besides its image. Its id follows from all of it but the labels.
struct Computation {
  StateOperation operation = StateOperation::kMerge;
  std::string params;                // canonical text: equal computations are one state
  std::vector<std::string> parents;  // ids
  std::vector<int32_t> tokens;       // all that the state stands for
  Labels labels;
};

// The record and the bytes, ready for the library; tells `usage` what is reused and stored.
absl::StatusOr<PutState> StageComputed(const ServiceContext& service, const Call& call,
                                       Computation computation, StateImage image, v1::Usage* usage);

// Of all inputs of a computation the one furthest from exact is what the result went on from.
StateOrigin FurthestOrigin(absl::Span<const StateImage* const> inputs);

// The end of a call that answers with `state`: adds the ref that the request asks for and the
// answer to `mutation`, and commits it.
template <typename Request, typename Response>
absl::Status CommitAnswer(const ServiceContext& service, const Call& call, const Request& request,
                          const StateRecord& state, Mutation mutation, AnswerBook::Claim& claim,
                          Response* response) {
  const std::string id = state.id;
  *response->mutable_state() = ToProto(state);
  if (!request.ref().empty()) {
    mutation.operations.push_back(
        SetRef{call.tenant, request.ref(), id, ExpectedRefState(request.expected_ref_state_id())});
    *response->mutable_ref() = ToProto(RefRecord{call.tenant, request.ref(), id, absl::Now(), 0});
  }
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  if (absl::IsAborted(status)) return WithReason(status, "REF_MISMATCH");
  ANABRANCH_RETURN_IF_ERROR(status);
  // With the etags, which the library gives.
  if (const auto stored = service.store->GetState(call.tenant, id); stored.ok()) {
    *response->mutable_state() = ToProto(*stored);
  }
  return absl::OkStatus();
}

// True: the request was answered before, and `response` is filled. Otherwise claims its id.
template <typename Request, typename Response>
absl::StatusOr<bool> BeginAnswer(const ServiceContext& service, const Call& call,
                                 const Request& request, Response* response,
                                 AnswerBook::Claim* claim) {
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, claim));
  if (!repeat && !request.ref().empty()) {
    ANABRANCH_RETURN_IF_ERROR(CheckRefName("ref", request.ref()));
  }
  return repeat;
}

// Answers with the state that `make(response)` computes: a StatusOr<PutState>.
template <typename Request, typename Response, typename Make>
absl::Status AnswerWithComputed(const ServiceContext& service, const Call& call,
                                const Request& request, Response* response, Make make) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(const bool repeat,
                             BeginAnswer(service, call, request, response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(PutState put, make(response));
  const StateRecord state = put.record;
  Mutation mutation;
  mutation.operations.push_back(std::move(put));
  return CommitAnswer(service, call, request, state, std::move(mutation), claim, response);
}

// Answers with a state of the library, which `choose(response)` gives: a StatusOr<StateRecord>.
template <typename Request, typename Response, typename Choose>
absl::Status AnswerWithStored(const ServiceContext& service, const Call& call,
                              const Request& request, Response* response, Choose choose) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(const bool repeat,
                             BeginAnswer(service, call, request, response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state, choose(response));
  return CommitAnswer(service, call, request, state, Mutation(), claim, response);
}

}  // namespace anabranch
