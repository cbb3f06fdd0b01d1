#include "service/state_loading.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "service/error_info.h"
#include "service/names.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int kMaxReads = 4;

// A small one is not worth a block.
absl::StatusOr<StateBytes> ReadPayload(StateStore& store, const StateRecord& record,
                                       PayloadBlock block) {
  if (record.payload_bytes < kWorthThreads) return store.GetPayload(record.tenant, record.id);
  Buffer memory;
  size_t size = 0;
  ANABRANCH_RETURN_IF_ERROR(store.ReadPayload(
      record.tenant, record.id, [&](size_t bytes) -> absl::StatusOr<absl::Span<char>> {
        ANABRANCH_ASSIGN_OR_RETURN(memory, block(bytes));
        size = bytes;
        return absl::MakeSpan(static_cast<char*>(memory.data()), bytes);
      }));
  return StateBytes(std::move(memory), size);
}

absl::StatusOr<LoadedState> ReadParts(StateStore& store, const Model& model,
                                      const std::string& tenant, const std::string& id,
                                      PayloadBlock block) {
  LoadedState state;
  ANABRANCH_ASSIGN_OR_RETURN(state.record, store.GetState(tenant, id));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(state.record, model));
  if (!IsWhole(state.record)) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "STATE_ARCHIVED",
                           absl::StrCat("state ", id, " is archived: only its tokens are kept"),
                           {{"state_id", id}});
  }
  ANABRANCH_ASSIGN_OR_RETURN(state.image.header, ParseStateHeader(state.record.header));
  ANABRANCH_ASSIGN_OR_RETURN(state.image.payload, ReadPayload(store, state.record, block));
  state.bytes = state.image.payload.size();
  for (const KvBlockRef& block : state.image.header.kv_blocks) {
    ANABRANCH_ASSIGN_OR_RETURN(std::string bytes, store.GetBlob(tenant, block.hash));
    state.bytes += bytes.size();
    state.image.kv_blocks.push_back(std::move(bytes));
  }
  ANABRANCH_ASSIGN_OR_RETURN(state.tokens, store.GetTokens(tenant, id));
  const int64_t count = state.tokens.size();
  if (count != state.record.token_count || count != state.image.header.token_count) {
    return absl::DataLossError(absl::StrCat("state ", id, ": its lineage holds ", count,
                                            " tokens, its record says ", state.record.token_count,
                                            ", its header ", state.image.header.token_count));
  }
  return state;
}

// What is stored becomes exact.
absl::Status Decode(const Model& model, LoadedState& state) {
  auto image = DecodeState(model.state_layout(), std::move(state.image));
  if (!image.ok()) {
    return absl::Status(image.status().code(),
                        absl::StrCat("state ", state.record.id, ": ", image.status().message()));
  }
  state.image = *std::move(image);
  return absl::OkStatus();
}

}  // namespace

bool SameForm(const StateRecord& a, const StateRecord& b) {
  return a.codec == b.codec && a.payload_checksum == b.payload_checksum;
}

absl::Status CheckModel(const StateRecord& record, const Model& model) {
  if (record.thinned) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "STATE_THINNED",
        absl::StrCat("state ", record.id, " was thinned, only its tokens stay: start from an ",
                     "ancestor, or rewind a session that went on from it to token ",
                     record.token_count),
        {{"state_id", record.id}});
  }
  if (record.fingerprint == model.fingerprint() &&
      record.numerics_profile == model.numerics_profile()) {
    return absl::OkStatus();
  }
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
      absl::StrCat("state ", record.id, " belongs to model ", record.fingerprint, " (",
                   record.numerics_profile, "), this call runs on ", model.fingerprint(), " (",
                   model.numerics_profile(), ")"),
      {{"state_model", record.fingerprint}, {"served_model", model.fingerprint()}});
}

absl::StatusOr<LoadedState> LoadStored(StateStore& store, const Model& model,
                                       const std::string& tenant, const std::string& id,
                                       PayloadBlock block) {
  // Record, payload and blocks are read one by one: a state that is recoded between gives parts of
  // two forms, and is read again.
  for (int attempt = 0;; ++attempt) {
    absl::StatusOr<LoadedState> state = ReadParts(store, model, tenant, id, block);
    const absl::StatusOr<StateRecord> now = store.GetState(tenant, id);
    if (!now.ok()) return now.status();
    const bool same = state.ok() ? SameForm(state->record, *now) : attempt > 0;
    if (same || attempt == kMaxReads) return state;
  }
}

absl::StatusOr<LoadedState> LoadState(StateStore& store, const Model& model,
                                      const std::string& tenant, const std::string& id,
                                      PayloadBlock block) {
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState state, LoadStored(store, model, tenant, id, block));
  ANABRANCH_RETURN_IF_ERROR(Decode(model, state));
  return state;
}

absl::StatusOr<LoadedState> LoadToRestore(StateStore& store, const Engine& engine,
                                          const std::string& tenant, const std::string& id,
                                          PayloadBlock block) {
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState state,
                             LoadStored(store, engine.model(), tenant, id, block));
  if (!engine.Restores(state.image.header)) {
    ANABRANCH_RETURN_IF_ERROR(Decode(engine.model(), state));
  }
  return state;
}

absl::StatusOr<StateRecord> ResolveState(StateStore& store, const std::string& tenant,
                                         const std::string& id_or_ref) {
  std::string id = id_or_ref;
  if (!IsStateId(id_or_ref)) {
    ANABRANCH_RETURN_IF_ERROR(CheckName("id", id_or_ref));
    auto ref = store.GetRef(tenant, id_or_ref);
    if (absl::IsNotFound(ref.status())) {
      return ErrorWithReason(absl::StatusCode::kNotFound, "REF_NOT_FOUND",
                             absl::StrCat("ref ", id_or_ref, " does not exist"),
                             {{"ref", id_or_ref}});
    }
    ANABRANCH_RETURN_IF_ERROR(ref.status());
    id = ref->state_id;
  }
  auto record = store.GetState(tenant, id);
  if (absl::IsNotFound(record.status())) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "STATE_NOT_FOUND",
                           absl::StrCat("state ", id, " does not exist"), {{"state_id", id}});
  }
  return record;
}

absl::StatusOr<StateRecord> ResolveStateId(StateStore& store, const std::string& tenant,
                                           const std::string& state_id) {
  if (IsStateId(state_id)) return ResolveState(store, tenant, state_id);
  return InvalidField("state_id", "must be \"st-\" and 40 hex digits");
}

absl::StatusOr<StateRecord> ResolveRefName(StateStore& store, const std::string& tenant,
                                           const std::string& ref_name) {
  if (!IsStateId(ref_name)) return ResolveState(store, tenant, ref_name);
  return InvalidField("ref_name", "is a state id");
}

absl::Status VisitLineage(StateStore& store, const std::string& tenant, const std::string& id,
                          absl::FunctionRef<bool(const StateRecord&)> visit) {
  PageRequest page;
  do {
    ANABRANCH_ASSIGN_OR_RETURN(auto lineage, store.GetLineage(tenant, id, page));
    for (const StateRecord& state : lineage.items) {
      if (!visit(state)) return absl::OkStatus();
    }
    page.token = lineage.next;
  } while (!page.token.empty());
  return absl::OkStatus();
}

}  // namespace anabranch
