#include "service/export_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "service/bundle_messages.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::StatusOr<bool> ExportStream::Next(v1::ExportResponse* response) {
  if (!source_.has_value()) ANABRANCH_RETURN_IF_ERROR(Open(response));
  ANABRANCH_RETURN_IF_ERROR(FillBuffer());
  if (buffer_.empty() && !response->has_bundle()) return false;
  v1::BundleChunk* chunk = response->mutable_chunk();
  chunk->set_offset(offset_);
  chunk->set_data(buffer_.substr(0, kBundleChunkBytes));
  chunk->set_crc32(Crc32(chunk->data()));
  buffer_.erase(0, chunk->data().size());
  offset_ += static_cast<int64_t>(chunk->data().size());
  return true;
}

absl::Status ExportStream::Open(v1::ExportResponse* response) {
  if (request_->offset() < 0) return InvalidField("offset", "must not be negative");
  if (request_->offset() > 0 && request_->bundle_id().empty()) {
    return InvalidField("bundle_id", "must be set with an offset");
  }
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                             ResolveState(*service_->store, call_->tenant, request_->id()));
  absl::StatusOr<BundlePlan> plan =
      PlanBundle(*service_->store, call_->tenant, state.id,
                 {request_->lineage(), /*refs=*/!request_->skip_refs()});
  if (absl::IsFailedPrecondition(plan.status())) return WithReason(plan.status(), "STATE_THINNED");
  ANABRANCH_RETURN_IF_ERROR(plan.status());
  *response->mutable_bundle() = ToProto(plan->header);
  if (!request_->bundle_id().empty() && request_->bundle_id() != response->bundle().bundle_id()) {
    return ErrorWithReason(absl::StatusCode::kAborted, "BUNDLE_CHANGED",
                           "the states or their names have changed since this export began: "
                           "begin again at offset 0");
  }
  if (request_->offset() > response->bundle().size_bytes()) {
    return InvalidField("offset",
                        absl::StrCat("is behind the end, ", response->bundle().size_bytes()));
  }
  source_.emplace(service_->store, *std::move(plan));
  return SkipTo(request_->offset());
}

absl::Status ExportStream::SkipTo(int64_t offset) {
  while (offset_ < offset) {
    ANABRANCH_RETURN_IF_ERROR(call_->Interrupted());
    ANABRANCH_RETURN_IF_ERROR(FillBuffer());
    const int64_t count = std::min<int64_t>(offset - offset_, static_cast<int64_t>(buffer_.size()));
    buffer_.erase(0, count);
    offset_ += count;
  }
  return absl::OkStatus();
}

absl::Status ExportStream::FillBuffer() {
  while (!ended_ && buffer_.size() < kBundleChunkBytes) {
    absl::StatusOr<std::string> next = source_->Next();
    if (absl::IsAborted(next.status())) return WithReason(next.status(), "BUNDLE_CHANGED");
    ANABRANCH_RETURN_IF_ERROR(next.status());
    ended_ = next->empty();
    buffer_ += *next;
  }
  return absl::OkStatus();
}

}  // namespace anabranch
