#include "service/verify_stream.h"

#include "statestore/base/status_macros.h"

namespace anabranch {

absl::StatusOr<bool> VerifyStream::Next(v1::VerifyProgress* response) {
  if (done_) return false;
  if (request_->max_bytes_per_second() < 0) {
    return InvalidField("max_bytes_per_second", "must not be negative");
  }
  if (!request_->id().empty()) {
    done_ = true;
    ANABRANCH_RETURN_IF_ERROR(
        VerifyOneState(*service_, *call_, request_->id(), request_->repair(), response));
    return true;
  }
  if (pass_ == nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(
        pass_, service_->scrubber->Begin({request_->repair(), request_->max_bytes_per_second()}));
  }
  ANABRANCH_RETURN_IF_ERROR(pass_->Step(*call_, response));
  done_ = response->done();
  if (done_) {
    pass_.reset();
  } else {
    PauseFor(pass_->Pause());
  }
  return true;
}

}  // namespace anabranch
