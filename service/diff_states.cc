#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "runtime/state_diff.h"
#include "service/library_handlers.h"
#include "service/proto_conversion.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

const char* KindName(StateKind kind) {
  if (kind == StateKind::kKeys) return "keys";
  return kind == StateKind::kValues ? "values" : "recurrent";
}

v1::TensorDistance ToProto(const TensorDistance& tensor) {
  v1::TensorDistance proto;
  proto.set_layer(tensor.layer);
  proto.set_kind(KindName(tensor.kind));
  proto.mutable_whole()->set_relative_l2(tensor.whole.relative_l2);
  proto.mutable_whole()->set_cosine(tensor.whole.cosine);
  proto.mutable_whole()->set_norm_a(tensor.whole.norm_a);
  proto.mutable_whole()->set_norm_b(tensor.whole.norm_b);
  proto.set_heads_per_part(tensor.heads_per_part);
  for (const Distance& part : tensor.parts) {
    proto.add_relative_l2(static_cast<float>(part.relative_l2));
    proto.add_cosine(static_cast<float>(part.cosine));
    proto.add_norm_a(static_cast<float>(part.norm_a));
    proto.add_norm_b(static_cast<float>(part.norm_b));
  }
  return proto;
}

}  // namespace

absl::Status HandleDiff(const ServiceContext& service, const Call& call,
                        const v1::DiffRequest& request, v1::DiffResponse* response) {
  const Model& model = *service.model->model();
  std::vector<StateRecord> records;
  std::vector<LoadedState> loaded;
  for (const std::string& id : {request.id_a(), request.id_b()}) {
    ANABRANCH_ASSIGN_OR_RETURN(StateRecord record, ResolveState(*service.store, call.tenant, id));
    ANABRANCH_RETURN_IF_ERROR(CheckModel(record, model));
    records.push_back(std::move(record));
  }
  const absl::Time start = absl::Now();
  v1::Usage* usage = response->mutable_usage();
  for (const StateRecord& record : records) {
    ANABRANCH_ASSIGN_OR_RETURN(LoadedState state,
                               StateAt(service, call, record, record.token_count, usage));
    loaded.push_back(std::move(state));
  }
  const absl::Time ready = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<TensorDistance> tensors,
                             DiffStates(model.state_layout(), loaded[0].image, loaded[1].image));
  usage->set_restore_ms(absl::ToDoubleMilliseconds(ready - start));
  usage->set_compute_ms(absl::ToDoubleMilliseconds(absl::Now() - ready));
  *response->mutable_a() = ToProto(records[0]);
  *response->mutable_b() = ToProto(records[1]);
  ANABRANCH_ASSIGN_OR_RETURN(*response->mutable_ancestor_id(),
                             NearestCommon(*service.store, records));
  for (const TensorDistance& tensor : tensors) *response->add_tensors() = ToProto(tensor);
  return absl::OkStatus();
}

}  // namespace anabranch
