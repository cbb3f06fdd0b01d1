#include "service/import_reactor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "service/bundle_messages.h"
#include "service/error_info.h"
#include "service/model_router.h"
#include "service/names.h"
#include "service/status_mapping.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kMaxTransferId = 64;
constexpr size_t kCatchUpBytes = 1 << 20;

absl::Status CheckTransferId(const std::string& id) {
  const bool known = std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
  if (known && !id.empty() && id.size() <= kMaxTransferId) return absl::OkStatus();
  return InvalidField("start.transfer_id", "must be 1 to 64 letters, digits, '-' or '_'");
}

}  // namespace

ImportReactor::ImportReactor(ServiceContext* service, grpc::CallbackServerContext* context)
    : service_(service),
      call_(service->calls->Begin("Import", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.stream_deadline))),
      guard_(context, call_->deadline) {
  StartRead(&request_);
}

absl::Status ImportReactor::OriginCheck::OnHeader(const BundleHeader& header) {
  if (static_cast<int64_t>(header.size_bytes) != owner_->start_.size_bytes()) {
    return InvalidField("start.size_bytes", absl::StrCat("is ", owner_->start_.size_bytes(),
                                                         ", the bundle says ", header.size_bytes));
  }
  owner_->service_ = owner_->service_->router->OfFingerprint(header.fingerprint);
  return CheckBundleOrigin(header, owner_->call_->tenant, *owner_->service_->model->model());
}

void ImportReactor::OnReadDone(bool ok) {
  if (!ok) return service_->pool->Run([this] { Complete(); });
  if (staged_ != nullptr) return service_->pool->Run([this] { HandleRequest(); });
  if (service_->pool->TryRun([this] { HandleRequest(); })) return;
  Fail(ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                       "too many calls are waiting: retry later"));
}

void ImportReactor::HandleRequest() {
  absl::Status status;
  if (staged_ == nullptr) {
    status = Start();
  } else if (!request_.has_chunk()) {
    status = InvalidField("chunk", "must be set in every message after the first");
  } else {
    status = Receive(request_.chunk());
  }
  if (!status.ok()) return Fail(std::move(status));
  SendProgress();
  StartRead(&request_);
}

absl::Status ImportReactor::CheckStart() const {
  if (!request_.has_start()) return InvalidField("start", "must be set in the first message");
  ANABRANCH_RETURN_IF_ERROR(CheckTransferId(request_.start().transfer_id()));
  if (request_.start().size_bytes() <= 0) {
    return InvalidField("start.size_bytes", "must be the size of the whole bundle");
  }
  if (request_.start().ref().empty()) return absl::OkStatus();
  return CheckRefName("start.ref", request_.start().ref());
}

absl::Status ImportReactor::Start() {
  ANABRANCH_RETURN_IF_ERROR(service_->calls->AdmitWork());
  ANABRANCH_RETURN_IF_ERROR(CheckStart());
  start_ = request_.start();
  ANABRANCH_ASSIGN_OR_RETURN(
      staged_, service_->imports->Open(call_->tenant, start_.transfer_id(), start_.size_bytes()));
  return CatchUp();
}

absl::Status ImportReactor::CatchUp() {
  reader_ = std::make_unique<BundleReader>(&origin_);
  for (int64_t offset = 0; offset < staged_->received();) {
    ANABRANCH_RETURN_IF_ERROR(call_->Interrupted());
    ANABRANCH_ASSIGN_OR_RETURN(const std::string bytes, staged_->Read(offset, kCatchUpBytes));
    if (!reader_->Feed(bytes).ok()) {
      // Damaged while it lay here, or of another bundle: all of it is sent again.
      reader_ = std::make_unique<BundleReader>(&origin_);
      return staged_->Restart();
    }
    offset += static_cast<int64_t>(bytes.size());
  }
  return absl::OkStatus();
}

absl::Status ImportReactor::Wrong(const absl::Status& status) {
  staged_->Discard();
  return WithReason(status, absl::IsFailedPrecondition(status) ? "BUNDLE_TOO_NEW" : "BAD_BUNDLE");
}

absl::Status ImportReactor::Receive(const v1::BundleChunk& chunk) {
  ANABRANCH_RETURN_IF_ERROR(CheckChunk(chunk, staged_->received()));
  const absl::Status read = reader_->Feed(chunk.data());
  if (!read.ok()) return Wrong(read);
  return staged_->Append(chunk.data());
}

void ImportReactor::Complete() {
  absl::Status interrupted = call_->Interrupted();
  if (!interrupted.ok()) return Fail(std::move(interrupted));
  if (staged_ == nullptr) return Fail(InvalidField("start", "the first message must have it"));
  if (!reader_->complete()) {
    return Fail(ErrorWithReason(
        absl::StatusCode::kInvalidArgument, "TRANSFER_INCOMPLETE",
        absl::StrCat("the client ended after ", staged_->received(), " of ", start_.size_bytes(),
                     " bytes: begin again with the same transfer_id, it goes on there")));
  }
  commit_ = std::make_unique<ImportCommit>(service_, call_, &start_, staged_.get());
  CommitStep();
}

void ImportReactor::CommitStep() {
  absl::Status interrupted = call_->Interrupted();
  if (!interrupted.ok()) return Fail(std::move(interrupted));
  const absl::StatusOr<bool> more = commit_->Step();
  if (absl::IsInvalidArgument(more.status())) return Fail(Wrong(more.status()));
  if (!more.ok()) return Fail(more.status());
  if (*more) {
    SendProgress();
    return service_->pool->Run([this] { CommitStep(); });
  }
  staged_->Discard();
  v1::ImportProgress last;
  last.set_received_bytes(staged_->received());
  last.set_states_stored(commit_->states_stored());
  *last.mutable_result() = commit_->result();
  staged_.reset();  // before the client can begin again
  End(std::move(last), grpc::Status::OK);
}

void ImportReactor::SendProgress() {
  v1::ImportProgress progress;
  progress.set_received_bytes(staged_->received());
  if (commit_ != nullptr) progress.set_states_stored(commit_->states_stored());
  Send(std::move(progress));
}

void ImportReactor::Merge(v1::ImportProgress later, v1::ImportProgress* pending) {
  *pending = std::move(later);
}

void ImportReactor::Fail(absl::Status status) {
  staged_.reset();
  call_->status = status;
  End(std::nullopt, ToGrpcStatus(status));
}

}  // namespace anabranch
