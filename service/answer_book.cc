#include "service/answer_book.h"

#include <google/protobuf/any.pb.h>

#include "service/error_info.h"
#include "service/names.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

AnswerBook::Claim& AnswerBook::Claim::operator=(Claim&& other) noexcept {
  Release();
  book_ = std::exchange(other.book_, nullptr);
  tenant_ = std::move(other.tenant_);
  request_id_ = std::move(other.request_id_);
  return *this;
}

void AnswerBook::Claim::Release() {
  if (book_ == nullptr) return;
  absl::MutexLock lock(&book_->mutex_);
  book_->running_.erase({tenant_, request_id_});
  book_ = nullptr;
}

void AnswerBook::Claim::StageAnswer(const google::protobuf::Message& answer,
                                    Mutation* mutation) const {
  if (book_ == nullptr) return;
  // Any keeps the type, so that an id cannot answer a call of another kind.
  google::protobuf::Any any;
  any.PackFrom(answer);
  mutation->operations.push_back(PutAnswer{tenant_, request_id_, any.SerializeAsString()});
}

absl::StatusOr<bool> AnswerBook::Begin(const std::string& tenant, const std::string& request_id,
                                       google::protobuf::Message* answer, Claim* claim) {
  if (request_id.empty()) return false;
  ANABRANCH_RETURN_IF_ERROR(CheckRequestId(request_id));
  {
    absl::MutexLock lock(&mutex_);
    if (!running_.insert({tenant, request_id}).second) {
      return ErrorWithReason(absl::StatusCode::kAborted, "REQUEST_IN_PROGRESS",
                             "a call with this request_id is running");
    }
  }
  claim->Release();
  claim->book_ = this;
  claim->tenant_ = tenant;
  claim->request_id_ = request_id;
  auto stored = store_->GetAnswer(tenant, request_id);
  if (absl::IsNotFound(stored.status())) return false;
  ANABRANCH_RETURN_IF_ERROR(stored.status());
  google::protobuf::Any any;
  if (!any.ParseFromString(*stored) || !any.UnpackTo(answer)) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                           "request_id: a call of another kind was answered under it",
                           {{"field", "request_id"}});
  }
  return true;
}

}  // namespace anabranch
