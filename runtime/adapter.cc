#include "runtime/adapter.h"

#include "kernels/elementwise.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

void Adapter::ListTensors(const std::string& prefix, int64_t rank, int64_t in_width,
                          int64_t out_width, std::vector<ExpectedTensor>& out) {
  out.push_back({prefix + "0.weight", {rank, in_width}});
  out.push_back({prefix + "1.weight", {out_width, rank}});
}

absl::StatusOr<Adapter> Adapter::Load(const std::string& prefix, WeightReader& weights) {
  Adapter adapter;
  ANABRANCH_ASSIGN_OR_RETURN(adapter.down_, weights.ReadLinear({prefix + "0"}, false));
  ANABRANCH_ASSIGN_OR_RETURN(adapter.up_, weights.ReadLinear({prefix + "1"}, false));
  return adapter;
}

absl::Status Adapter::Run(const StepContext& step, ConstActs x, int64_t x_stride, Acts y,
                          int64_t y_stride) const {
  kernels::AddScaledParams add;
  add.rows = step.rows.num_rows();
  add.width = add.y_stride = up_.out_features();
  const int64_t rank = down_.out_features();
  ANABRANCH_ASSIGN_OR_RETURN(Acts few, step.workspace->Take(add.rows * rank));
  ANABRANCH_ASSIGN_OR_RETURN(Acts all, step.workspace->Take(add.rows * add.width));
  ANABRANCH_RETURN_IF_ERROR(down_.Run(add.rows, x, x_stride, few, rank, step));
  ANABRANCH_RETURN_IF_ERROR(up_.Run(add.rows, few, rank, all, add.width, step));
  add.x = y;
  add.x_stride = y_stride;
  add.y = all;
  return step.kernels->add_scaled(add, step.launch);
}

}  // namespace anabranch
