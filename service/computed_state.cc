#include "service/computed_state.h"

namespace anabranch {

PutState StageComputed(const Call& call, Computation computation, StateImage image,
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
  usage->set_state_bytes_stored(StageImage(std::move(image), {}, &put));
  usage->set_tokens_reused(static_cast<int64_t>(record.span_tokens.size()));
  record.id = StateId(record);
  return put;
}

}  // namespace anabranch
