#include "service/recode_state.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/proto_conversion.h"
#include "service/state_loading.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status NotRebuildable(const StateRecord& state, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "STATE_NOT_REBUILDABLE",
                         absl::StrCat("state ", state.id, " ", why), {{"state_id", state.id}});
}

// What is stored in the new codec. Encoding is no step of the computation: where the state comes
// from stays as it was, and errors add up.
absl::StatusOr<StoredImage> Transcode(const ServiceContext& service, const StateRecord& state,
                                      StateCodec codec, v1::Usage* usage) {
  const Model& model = *service.model->model();
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState stored,
                             LoadStored(*service.store, model, state.tenant, state.id));
  usage->set_state_bytes_loaded(usage->state_bytes_loaded() + stored.bytes);
  const StateOrigin origin = stored.image.header.origin;
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image,
                             DecodeState(model.state_layout(), std::move(stored.image)));
  ANABRANCH_RETURN_IF_ERROR(
      CheckState(image, model.state_layout(), model.fingerprint(), model.numerics_profile()));
  image.header.origin = origin;
  return EncodeFor(service.storing, codec, std::move(image));
}

// Whether what was read again is what the header of the archived or lossy state says. A state that
// came out of lossy ones, or was compressed from its near form, cannot be compared.
absl::Status CheckSame(const Model& model, const StateRecord& state, const StateImage& exact) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateHeader was, ParseStateHeader(state.header));
  if (was.origin.lossy_restores > 0 || was.codec == StateCodec::kCompact) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateImage image,
                             EncodeState(model.state_layout(), exact, was.codec));
  const StateHeader& is = image.header;
  bool same =
      is.segments.size() == was.segments.size() && is.kv_blocks.size() == was.kv_blocks.size();
  for (size_t i = 0; same && i < is.segments.size(); ++i) {
    same = is.segments[i].checksum == was.segments[i].checksum;
  }
  for (size_t i = 0; same && i < is.kv_blocks.size(); ++i) {
    same = is.kv_blocks[i].hash == was.kv_blocks[i].hash;
  }
  if (same) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("state ", state.id, ": reading its tokens again does not give what its header ",
                   "says; it is left as it is"));
}

absl::StatusOr<StoredImage> Rebuild(const ServiceContext& service, const Call& call,
                                    const StateRecord& state, StateCodec codec, v1::Usage* usage) {
  if (state.operation != StateOperation::kAppend) {
    return NotRebuildable(state, absl::StrCat("was computed (", OperationName(state.operation),
                                              ") and is no function of tokens: it cannot become "
                                              "more exact than ",
                                              StateCodecName(state.codec)));
  }
  ANABRANCH_ASSIGN_OR_RETURN(
      const StateRecord base,
      FindPoint(*service.store, state, state.token_count, PrefixKind::kExact));
  if (!base.id.empty() && !IsExact(base)) {
    return NotRebuildable(state, absl::StrCat("goes on from ", base.id,
                                              ", which was computed and is not exact itself"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState loaded, ReadAgain(service, call, state, state.token_count,
                                                           PrefixKind::kExact, usage));
  ANABRANCH_RETURN_IF_ERROR(CheckSame(*service.model->model(), state, loaded.image));
  return EncodeFor(service.storing, codec, std::move(loaded.image));
}

absl::StatusOr<RecodeState> MakeRecoding(const ServiceContext& service, const Call& call,
                                         const StateRecord& state, const Recoding& recoding,
                                         v1::Usage* usage) {
  const bool less = IsWhole(state) && recoding.codec > state.codec;
  ANABRANCH_ASSIGN_OR_RETURN(StoredImage stored,
                             less ? Transcode(service, state, recoding.codec, usage)
                                  : Rebuild(service, call, state, recoding.codec, usage));
  RecodeState operation;
  operation.replaces = state.payload_checksum;
  operation.etag = recoding.etag;
  operation.put.record = state;
  operation.put.record.keep_codec = recoding.keep;
  usage->set_state_bytes_stored(StageImage(std::move(stored), {}, &operation.put));
  if (less) operation.put.record.codec_error += state.codec_error;
  return operation;
}

}  // namespace

absl::StatusOr<SessionManager::Hold> StageRecoding(const ServiceContext& service, const Call& call,
                                                   const StateRecord& state,
                                                   const Recoding& recoding, Mutation* mutation,
                                                   v1::Usage* usage) {
  ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service.model->model()));
  if (recoding.codec == state.codec) return SessionManager::Hold();
  if (recoding.codec == StateCodec::kArchive && state.operation != StateOperation::kAppend) {
    return NotRebuildable(state, absl::StrCat("was computed (", OperationName(state.operation),
                                              "): no tokens lead to it, so it cannot be archived"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(SessionManager::Hold hold,
                             service.sessions->HoldForRecoding(state, recoding.cold));
  if (recoding.codec == StateCodec::kArchive) {
    mutation->operations.push_back(ArchiveState{state.tenant, state.id, recoding.etag});
    return hold;
  }
  ANABRANCH_ASSIGN_OR_RETURN(RecodeState operation,
                             MakeRecoding(service, call, state, recoding, usage));
  mutation->operations.push_back(std::move(operation));
  return hold;
}

absl::Status HandleRecodeState(const ServiceContext& service, const Call& call,
                               const v1::RecodeStateRequest& request,
                               v1::RecodeStateResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const auto codec, ParseCodec("codec", request.codec()));
  if (!codec.has_value()) return InvalidField("codec", "must be set");
  Recoding recoding{*codec, {}, /*keep=*/true, /*cold=*/false};
  ANABRANCH_ASSIGN_OR_RETURN(recoding.etag, ParseEtag(request.etag()));
  ANABRANCH_ASSIGN_OR_RETURN(StateRecord state,
                             ResolveState(*service.store, call.tenant, request.id()));
  Mutation mutation;
  ANABRANCH_ASSIGN_OR_RETURN(
      const SessionManager::Hold hold,
      StageRecoding(service, call, state, recoding, &mutation, response->mutable_usage()));
  if (mutation.operations.empty()) {
    *response->mutable_state() = ToProto(state);
    return absl::OkStatus();
  }
  // A repeat of the request gets this answer; all that it lacks are sizes and the new etag.
  *response->mutable_state() = ToProto(state);
  response->mutable_state()->set_codec(request.codec());
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  if (absl::IsAborted(status)) return WithReason(status, "ETAG_MISMATCH");
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_ASSIGN_OR_RETURN(state, service.store->GetState(call.tenant, state.id));
  *response->mutable_state() = ToProto(state);
  return absl::OkStatus();
}

}  // namespace anabranch
