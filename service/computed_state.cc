#include "service/computed_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace anabranch {

StateOrigin FurthestOrigin(absl::Span<const StateImage* const> inputs) {
  StateOrigin furthest;
  for (const StateImage* input : inputs) {
    if (input == nullptr) continue;
    const StateOrigin& origin = input->header.origin;
    if (origin.lossy_restores > furthest.lossy_restores) furthest = origin;
  }
  return furthest;
}

absl::StatusOr<PutState> StageComputed(const ServiceContext& service, const Call& call,
                                       Computation computation, StateImage image,
                                       v1::Usage* usage) {
  PutState put;
  StateRecord& record = put.record;
  record.tenant = call.tenant;
  record.operation = computation.operation;
  record.operation_params = std::move(computation.params);
  record.parents = std::move(computation.parents);
  record.span_tokens = std::move(computation.tokens);
  record.labels = std::move(computation.labels);
  record.created = absl::Now();
  StateOrigin& origin = image.header.origin;
  origin.restored_at = std::min(origin.restored_at, image.header.token_count);
  const std::string base = LossyBaseParameter(origin, /*base_tokens=*/-1);
  if (!base.empty()) absl::StrAppend(&record.operation_params, " ", base);
  ANABRANCH_ASSIGN_OR_RETURN(StoredImage stored,
                             EncodeFor(service.storing, service.storing.codec, std::move(image)));
  const int64_t bytes = StageImage(std::move(stored), {}, &put);
  usage->set_state_bytes_stored(usage->state_bytes_stored() + bytes);
  usage->set_tokens_reused(static_cast<int64_t>(record.span_tokens.size()));
  usage->set_lossy_restores(static_cast<int32_t>(record.lossy_restores));
  record.id = StateId(record);
  return put;
}

}  // namespace anabranch
