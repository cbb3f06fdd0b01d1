// GetStateStats: how large the tensors of a state are.
#include "runtime/state_stats.h"
#include "service/library_handlers.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

const char* KindOf(const TensorStats& stats) {
  if (stats.layer == kLastLogitsLayer) return "logits";
  switch (stats.kind) {
    case StateKind::kWindow:
      return "window";
    case StateKind::kRecurrent:
      return "recurrent";
    case StateKind::kCumulative:
      return "steps";
    case StateKind::kKeys:
      return "keys";
    case StateKind::kValues:
      return "values";
  }
  return "";
}

}  // namespace

absl::Status HandleGetStateStats(const ServiceContext& service, const Call& call,
                                 const v1::GetStateStatsRequest& request,
                                 v1::StateStats* response) {
  const Model& model = *service.model->model();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord record,
                             ResolveState(*service.store, call.tenant, request.id()));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(record, model));
  v1::Usage usage;
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState state,
                             StateAt(service, call, record, record.token_count, &usage));
  response->set_state_id(record.id);
  response->set_token_count(record.token_count);
  for (const TensorStats& stats : ComputeStateStats(model.state_layout(), state.image)) {
    v1::TensorStats* tensor = response->add_tensors();
    tensor->set_layer(stats.layer);
    tensor->set_kind(KindOf(stats));
    tensor->mutable_shape()->Add(stats.shape.begin(), stats.shape.end());
    tensor->mutable_norms()->Add(stats.norms.begin(), stats.norms.end());
    tensor->set_max_abs(stats.max_abs);
    tensor->set_nonfinite_count(stats.nonfinite_count);
    tensor->set_checksum(stats.checksum);
  }
  return absl::OkStatus();
}

}  // namespace anabranch
