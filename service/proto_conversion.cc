#include "service/proto_conversion.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "service/checkpoint_policy.h"
#include "service/error_info.h"

namespace anabranch {
namespace {

void CopyLabels(const Labels& from, google::protobuf::Map<std::string, std::string>* to) {
  for (const auto& [key, value] : from) (*to)[key] = value;
}

}  // namespace

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp result;
  const int64_t seconds = absl::ToUnixSeconds(time);
  result.set_seconds(seconds);
  result.set_nanos(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds)));
  return result;
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  const int32_t nanos = time.nanos() >= 0 && time.nanos() < 1000000000 ? time.nanos() : 0;
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(nanos);
}

v1::Session ToProto(const SessionView& view) {
  v1::Session session;
  session.set_id(view.record.id);
  session.set_ref(view.record.ref);
  session.set_head_state_id(view.record.head_state);
  session.set_token_count(view.token_count);
  session.set_head_token_count(view.record.head_position);
  session.set_model_fingerprint(view.record.fingerprint);
  CopyLabels(view.record.labels, session.mutable_labels());
  *session.mutable_create_time() = ToProto(view.record.created);
  *session.mutable_update_time() = ToProto(view.record.updated);
  session.set_loaded(view.loaded);
  session.set_busy(view.busy);
  *session.mutable_checkpoints() = ToProto(view.record.checkpoints);
  const SessionBase& base = view.record.base;
  session.set_core_state_id(base.core);
  for (const AuxState& aux : base.aux) {
    v1::Auxiliary& added = *session.add_aux();
    added.set_id(aux.name);
    added.set_weight(aux.weight);
    added.set_state_id(aux.state_id);
  }
  session.set_base_state_id(base.state);
  session.set_base_token_count(base.position);
  return session;
}

const char* OperationName(StateOperation operation) {
  constexpr const char* kNames[] = {"append", "merge", "span", "forget", "decay", "swap"};
  return kNames[static_cast<int>(operation)];
}

v1::StateCodec ToProto(StateCodec codec) {
  return static_cast<v1::StateCodec>(static_cast<int>(codec) + 1);
}

absl::StatusOr<std::optional<StateCodec>> ParseCodec(const std::string& field,
                                                     v1::StateCodec codec) {
  if (codec == v1::STATE_CODEC_UNSPECIFIED) return std::optional<StateCodec>();
  if (codec < v1::STATE_CODEC_EXACT || codec > v1::STATE_CODEC_ARCHIVE) {
    return InvalidField(field, "is no codec that this server knows");
  }
  return std::optional<StateCodec>(static_cast<StateCodec>(codec - 1));
}

absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& etag) {
  if (etag.empty()) return std::optional<uint64_t>();
  uint64_t number = 0;
  if (!absl::SimpleAtoi(etag, &number)) return InvalidField("etag", "is not an etag");
  return std::optional<uint64_t>(number);
}

v1::State ToProto(const StateRecord& record) {
  v1::State state;
  state.set_id(record.id);
  for (const std::string& parent : record.parents) state.add_parent_ids(parent);
  state.set_operation(OperationName(record.operation));
  state.set_operation_params(record.operation_params);
  state.set_model_fingerprint(record.fingerprint);
  state.set_numerics_profile(record.numerics_profile);
  state.set_token_count(record.token_count);
  state.set_span_token_count(record.span_tokens.size());
  state.set_size_bytes(record.payload_bytes + record.blob_bytes);
  CopyLabels(record.labels, state.mutable_labels());
  *state.mutable_create_time() = ToProto(record.created);
  if (record.expires != absl::InfiniteFuture()) {
    *state.mutable_expire_time() = ToProto(record.expires);
  }
  state.set_pinned(record.pinned);
  state.set_etag(absl::StrCat(record.etag));
  state.set_kind(KindName(record));
  state.set_thinned(record.thinned);
  const uint64_t stored = record.payload_bytes + record.blob_bytes;
  state.set_codec(ToProto(record.codec));
  state.set_archived(record.codec == StateCodec::kArchive && !record.thinned);
  state.set_exact_size_bytes(record.exact_bytes == 0 ? stored : record.exact_bytes);
  state.set_codec_error(record.codec_error);
  state.set_lossy_restores(static_cast<int32_t>(record.lossy_restores));
  return state;
}

v1::Ref ToProto(const RefRecord& record) {
  v1::Ref ref;
  ref.set_name(record.name);
  ref.set_state_id(record.state_id);
  *ref.mutable_update_time() = ToProto(record.updated);
  ref.set_etag(absl::StrCat(record.etag));
  return ref;
}

}  // namespace anabranch
