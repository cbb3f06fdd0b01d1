#include "service/state_repair.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/state_image.h"
#include "service/error_info.h"
#include "service/model_router.h"
#include "service/state_loading.h"
#include "service/state_points.h"
#include "service/state_storing.h"
#include "statestore/base/status_macros.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

// Everything of the state as it is stored. DATA_LOSS if anything is damaged.
absl::StatusOr<PutState> ReadStored(StateStore& store, const StateRecord& record) {
  PutState put;
  put.record = record;
  ANABRANCH_ASSIGN_OR_RETURN(put.payload, store.GetPayload(record.tenant, record.id));
  for (const std::string& hash : record.blob_hashes) {
    ANABRANCH_RETURN_IF_ERROR(store.GetBlob(record.tenant, hash).status());
    put.blobs.emplace_back();  // it is stored
  }
  return put;
}

absl::Status CannotRepair(const StateRecord& record, absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("state ", record.id, " cannot be read again: ", why,
                   ". Import it from a bundle, or restore a backup"));
}

// The deepest state before this one that can be loaded whole, or nothing for the beginning.
absl::StatusOr<LoadedState> SoundBase(const ServiceContext& service, const StateRecord& record) {
  LoadedState base;
  if (record.parents.empty()) return base;
  const Model& model = *service.model->model();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord parent,
                             service.store->GetState(record.tenant, record.parents.front()));
  std::string computed;
  ANABRANCH_RETURN_IF_ERROR(VisitPast(*service.store, parent, [&](const StateRecord& each) {
    if (IsExact(each)) {
      absl::StatusOr<LoadedState> loaded = LoadState(*service.store, model, each.tenant, each.id);
      if (loaded.ok() && CheckState(loaded->image, model.state_layout(), model.fingerprint(),
                                    model.numerics_profile())
                             .ok()) {
        base = *std::move(loaded);
        return false;
      }
    }
    if (each.operation != StateOperation::kAppend) computed = each.id;
    return computed.empty();
  }));
  if (base.tokens.empty() && !computed.empty()) {
    return CannotRepair(record,
                        absl::StrCat("it goes on from ", computed,
                                     ", which was computed and is not exact or damaged too"));
  }
  return base;
}

// Whether the state as it was read again is the one that was stored.
absl::Status CheckSame(const StateRecord& record, const PutState& read) {
  if (PayloadChecksum(read.payload) == record.payload_checksum &&
      read.record.blob_hashes == record.blob_hashes && read.record.header == record.header) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "state ", record.id, ": reading its tokens again gave other bytes than were recorded, so it ",
      "was left as it is. Was it made by another build or kind of device?"));
}

}  // namespace

absl::Status RepairState(const ServiceContext& any, const Call& call, const std::string& tenant,
                         const std::string& id) {
  StateStore& store = *any.store;
  const absl::StatusOr<StateRecord> record = store.GetState(tenant, id);
  if (!record.ok()) {
    return absl::Status(record.status().code(),
                        absl::StrCat(record.status().message(), ". With the record its tokens are ",
                                     "gone: import it from a bundle, or restore a backup"));
  }
  if (!IsWhole(*record)) return absl::OkStatus();
  const ServiceContext& service = *any.router->OfFingerprint(record->fingerprint);
  Mutation mutation;
  absl::StatusOr<PutState> stored = ReadStored(store, *record);
  if (stored.ok()) {
    // Its entries in the indexes, at most: putting it again restores them.
    mutation.operations.push_back(*std::move(stored));
    return WriteError(store.CommitAndWait(std::move(mutation)));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckModel(*record, *service.model->model()));
  if (record->operation != StateOperation::kAppend) {
    return CannotRepair(*record, "it was computed, not read");
  }
  if (record->lossy_restores > 0) {
    return CannotRepair(*record, "its content went on from a lossy state");
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, store.GetTokens(tenant, id));
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState state, SoundBase(service, *record));
  v1::Usage usage;
  ANABRANCH_RETURN_IF_ERROR(Replay(service, call, std::move(tokens), state, &usage));
  ANABRANCH_ASSIGN_OR_RETURN(StoredImage image,
                             EncodeFor(service.storing, record->codec, std::move(state.image)));
  PutState put;
  StageImage(std::move(image), {}, &put);
  ANABRANCH_RETURN_IF_ERROR(CheckSame(*record, put));
  put.record = *record;
  mutation.operations.push_back(std::move(put));
  ANABRANCH_RETURN_IF_ERROR(WriteError(store.CommitAndWait(std::move(mutation))));
  return ReadStored(store, *record).status();
}

}  // namespace anabranch
