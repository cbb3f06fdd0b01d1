#include "service/import_commit.h"

#include <algorithm>

#include "absl/container/node_hash_map.h"
#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "runtime/state_image.h"
#include "service/bundle_messages.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr int kReadsPerStep = 16;
// States that are committed together.
constexpr uint64_t kGroupBytes = 16u << 20;
constexpr size_t kGroupStates = 64;

}  // namespace

absl::Status CheckBundleOrigin(const BundleHeader& header, const std::string& tenant,
                               const Model& model) {
  if (header.tenant != tenant) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "TENANT_MISMATCH",
        absl::StrCat("the bundle is of tenant ", header.tenant, ", this connection is of ", tenant,
                     ": state ids are of one tenant"));
  }
  if (header.fingerprint == model.fingerprint() &&
      header.numerics_profile == model.numerics_profile()) {
    return absl::OkStatus();
  }
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
      absl::StrCat("the bundle belongs to model ", header.fingerprint, " (",
                   header.numerics_profile, "), which this server does not serve, but ",
                   model.fingerprint(), " (", model.numerics_profile(), ")"),
      {{"bundle_model", header.fingerprint}, {"served_model", model.fingerprint()}});
}

// One reading of the bundle. Puts each state together with its payload, and remembers where blobs
// lie: they come once and may be needed by many.
class ImportCommit::Pass : public BundleVisitor {
 public:
  explicit Pass(const StagedImport* staged) : staged_(staged) {}

  absl::Status OnHeader(const BundleHeader& header) override {
    header_ = header;
    return absl::OkStatus();
  }
  absl::Status OnBlob(const BundleItem& item) override {
    in_state_ = false;
    blob_ = &blobs_[item.name];
    return absl::OkStatus();
  }
  absl::Status OnState(const StateRecord& record) override {
    in_state_ = true;
    state_ = record;
    payload_.clear();
    return absl::OkStatus();
  }
  absl::Status OnContent(absl::string_view piece, uint64_t offset) override {
    if (in_state_) {
      payload_.append(piece.data(), piece.size());
    } else {
      blob_->push_back({offset, piece.size()});
    }
    return absl::OkStatus();
  }
  absl::Status OnContentEnd() override { return in_state_ ? OnWhole() : absl::OkStatus(); }

  virtual absl::Status Finish() { return absl::OkStatus(); }
  const BundleHeader& header() const { return header_; }

 protected:
  // A state with its payload.
  virtual absl::Status OnWhole() = 0;

  absl::StatusOr<std::string> LoadBlob(const std::string& hash) const {
    std::string blob;
    const auto pieces = blobs_.find(hash);
    if (pieces == blobs_.end()) return absl::InternalError("a block was not noticed");
    for (const auto& [offset, bytes] : pieces->second) {
      ANABRANCH_ASSIGN_OR_RETURN(const std::string piece,
                                 staged_->Read(static_cast<int64_t>(offset), bytes));
      blob += piece;
    }
    return blob;
  }

  StateRecord state_;
  std::string payload_;

 private:
  const StagedImport* const staged_;
  BundleHeader header_;
  bool in_state_ = false;
  using Pieces = std::vector<std::pair<uint64_t, size_t>>;  // offset in the bundle, bytes
  Pieces* blob_ = nullptr;
  absl::node_hash_map<std::string, Pieces> blobs_;
};

class ImportCommit::CheckPass final : public Pass {
 public:
  CheckPass(const StagedImport* staged, const Model* model) : Pass(staged), model_(model) {}

 protected:
  // As a restore would, so that what was imported can be resumed.
  absl::Status OnWhole() override {
    if (state_.thinned) return absl::OkStatus();
    const absl::Status checked = Check();
    if (checked.ok()) return checked;
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, "BAD_BUNDLE",
                           absl::StrCat("state ", state_.id, ": ", checked.message()),
                           {{"state_id", state_.id}});
  }

 private:
  absl::Status Check() {
    StateImage image;
    ANABRANCH_ASSIGN_OR_RETURN(image.header, ParseStateHeader(state_.header));
    if (image.header.token_count != state_.token_count) {
      return absl::InvalidArgumentError(absl::StrCat("its header is of ", image.header.token_count,
                                                     " tokens, its record of ",
                                                     state_.token_count));
    }
    if (!IsWhole(state_)) return absl::OkStatus();
    if (image.header.codec != state_.codec) {
      return absl::InvalidArgumentError("its header and its record name different codecs");
    }
    image.payload = std::move(payload_);
    for (const KvBlockRef& block : image.header.kv_blocks) {
      if (std::find(state_.blob_hashes.begin(), state_.blob_hashes.end(), block.hash) ==
          state_.blob_hashes.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("its header names the block ", block.hash, ", its record does not"));
      }
      ANABRANCH_ASSIGN_OR_RETURN(std::string blob, LoadBlob(block.hash));
      image.kv_blocks.push_back(std::move(blob));
    }
    ANABRANCH_ASSIGN_OR_RETURN(image, DecodeState(model_->state_layout(), std::move(image)));
    return CheckState(image, model_->state_layout(), model_->fingerprint(),
                      model_->numerics_profile());
  }

  const Model* const model_;
};

class ImportCommit::StorePass final : public Pass {
 public:
  explicit StorePass(ImportCommit* import) : Pass(import->staged_), import_(*import) {}

  absl::Status OnRef(const std::string& name, const std::string& state_id) override {
    if (import_.start_->skip_refs() || name == import_.start_->ref()) return absl::OkStatus();
    const auto ref = import_.service_->store->GetRef(import_.call_->tenant, name);
    if (absl::IsNotFound(ref.status())) {
      group_.operations.push_back(SetRef{import_.call_->tenant, name, state_id, ""});
      import_.result_.add_refs_set(name);
      return absl::OkStatus();
    }
    ANABRANCH_RETURN_IF_ERROR(ref.status());
    if (ref->state_id != state_id) import_.result_.add_refs_kept(name);
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    ANABRANCH_RETURN_IF_ERROR(StageRef());
    ANABRANCH_RETURN_IF_ERROR(Commit());
    StateStore& store = *import_.service_->store;
    v1::ImportResult& result = import_.result_;
    *result.mutable_bundle() = ToProto(header());
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                               store.GetState(import_.call_->tenant, header().state_id));
    *result.mutable_state() = ToProto(state);
    if (import_.start_->ref().empty()) return absl::OkStatus();
    ANABRANCH_ASSIGN_OR_RETURN(const RefRecord ref,
                               store.GetRef(import_.call_->tenant, import_.start_->ref()));
    *result.mutable_ref() = ToProto(ref);
    return absl::OkStatus();
  }

 protected:
  absl::Status OnWhole() override {
    ANABRANCH_ASSIGN_OR_RETURN(const bool needed, Count());
    if (!needed) return absl::OkStatus();
    PutState put;
    for (const std::string& hash : state_.blob_hashes) {
      ANABRANCH_ASSIGN_OR_RETURN(std::string blob, BlobToSend(hash));
      group_bytes_ += blob.size();
      put.blobs.push_back(std::move(blob));
    }
    put.record = std::move(state_);
    put.payload = std::move(payload_);
    group_bytes_ += put.payload.size();
    group_.operations.push_back(std::move(put));
    if (group_bytes_ < kGroupBytes && group_.operations.size() < kGroupStates) {
      return absl::OkStatus();
    }
    return Commit();
  }

 private:
  // Whether the library lacks something of the state at hand.
  absl::StatusOr<bool> Count() {
    StateStore& store = *import_.service_->store;
    v1::ImportResult& result = import_.result_;
    const auto stored = store.GetState(import_.call_->tenant, state_.id);
    if (absl::IsNotFound(stored.status())) {
      result.set_states_added(result.states_added() + 1);
      return true;
    }
    bool whole = stored.ok() && (!IsWhole(state_) || IsWhole(*stored));
    if (whole && IsWhole(*stored)) {
      whole = store.GetPayload(stored->tenant, stored->id).ok();
      for (size_t i = 0; whole && i < stored->blob_hashes.size(); ++i) {
        whole = IsStored(stored->blob_hashes[i]);
      }
    }
    if (whole) {
      result.set_states_unchanged(result.states_unchanged() + 1);
    } else {
      result.set_states_completed(result.states_completed() + 1);
    }
    return !whole;
  }

  bool IsStored(const std::string& hash) {
    if (stored_blobs_.contains(hash)) return true;
    if (!import_.service_->store->GetBlob(import_.call_->tenant, hash).ok()) return false;
    stored_blobs_.insert(hash);
    return true;
  }

  // Empty if the library has it, or will have it by an operation before.
  absl::StatusOr<std::string> BlobToSend(const std::string& hash) {
    if (IsStored(hash)) return std::string();
    stored_blobs_.insert(hash);
    return LoadBlob(hash);
  }

  absl::Status StageRef() {
    const std::string& name = import_.start_->ref();
    if (name.empty()) return absl::OkStatus();
    const auto ref = import_.service_->store->GetRef(import_.call_->tenant, name);
    // As an earlier attempt of the same import has left it.
    if (ref.ok() && ref->state_id == header().state_id) return absl::OkStatus();
    group_.operations.push_back(SetRef{import_.call_->tenant, name, header().state_id,
                                       ExpectedRefState(import_.start_->expected_ref_state_id())});
    return absl::OkStatus();
  }

  absl::Status Commit() {
    if (group_.operations.empty()) return absl::OkStatus();
    group_bytes_ = 0;
    const absl::Status status =
        WriteError(import_.service_->store->CommitAndWait(std::exchange(group_, Mutation())));
    ReachCrashPoint(CrashPoint::kImportGroupStored);
    return absl::IsAborted(status) ? WithReason(status, "REF_MISMATCH") : status;
  }

  ImportCommit& import_;
  Mutation group_;
  uint64_t group_bytes_ = 0;
  absl::flat_hash_set<std::string> stored_blobs_;
};

ImportCommit::ImportCommit(ServiceContext* service, const CallPtr& call,
                           const v1::ImportStart* start, const StagedImport* staged)
    : service_(service), call_(call), start_(start), staged_(staged) {}

ImportCommit::~ImportCommit() = default;

int64_t ImportCommit::states_stored() const {
  return result_.states_added() + result_.states_completed() + result_.states_unchanged();
}

absl::StatusOr<bool> ImportCommit::Step() {
  if (reader_ == nullptr) {
    if (passes_ == 0) pass_ = std::make_unique<CheckPass>(staged_, service_->model->model().get());
    if (passes_ == 1) pass_ = std::make_unique<StorePass>(this);
    if (passes_ == 2) return false;
    reader_ = std::make_unique<BundleReader>(pass_.get());
    offset_ = 0;
  }
  for (int i = 0; i < kReadsPerStep; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string bytes, staged_->Read(offset_, kReadBytes));
    if (bytes.empty()) break;
    offset_ += static_cast<int64_t>(bytes.size());
    ANABRANCH_RETURN_IF_ERROR(reader_->Feed(bytes));
  }
  if (offset_ < staged_->received()) return true;
  ANABRANCH_RETURN_IF_ERROR(reader_->Finish());
  ANABRANCH_RETURN_IF_ERROR(pass_->Finish());
  ReachCrashPoint(passes_ == 0 ? CrashPoint::kImportChecked : CrashPoint::kImportFinished);
  reader_.reset();
  return ++passes_ < 2;
}

}  // namespace anabranch
