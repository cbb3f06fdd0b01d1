#include "runtime/model_forward.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status BadBatch(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("batch: ", what));
}

// `starts` is [n + 1], from 0 to total, never descending; `min_step` items each.
bool ValidStarts(absl::Span<const int32_t> starts, size_t n, size_t total, int32_t min_step) {
  if (starts.size() != n + 1 || starts[0] != 0) return false;
  for (size_t i = 0; i < n; ++i) {
    if (starts[i + 1] < starts[i] || starts[i + 1] - starts[i] < min_step) return false;
  }
  return static_cast<size_t>(starts[n]) == total;
}

absl::Status CheckPages(const StepBatch& batch) {
  const size_t seqs = batch.slots.size();
  if (!ValidStarts(batch.page_start, seqs, batch.pages.size(), 0)) {
    return BadBatch("page_start does not match pages");
  }
  for (size_t i = 0; i < seqs; ++i) {
    const int64_t tokens = batch.positions[i] + batch.row_start[i + 1] - batch.row_start[i];
    const int64_t pages = batch.page_start[i + 1] - batch.page_start[i];
    if (pages < (tokens + kKvPageTokens - 1) / kKvPageTokens) {
      return BadBatch(
          absl::StrCat("sequence ", i, " has ", pages, " pages for ", tokens, " tokens"));
    }
  }
  for (int32_t page : batch.pages) {
    if (page < 0) return BadBatch("negative page");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const StepBatch& batch, const StateArrays& state, const StateLayout& layout,
                        int64_t vocab, size_t logits_size) {
  const size_t seqs = batch.slots.size();
  if (seqs == 0 || !ValidStarts(batch.row_start, seqs, batch.tokens.size(), 1)) {
    return BadBatch("row_start does not match tokens, or a sequence has no rows");
  }
  if (batch.positions.size() != seqs) return BadBatch("positions does not match slots");
  for (size_t i = 0; i < seqs; ++i) {
    if (batch.slots[i] < 0 || batch.positions[i] < 0) return BadBatch("negative slot or position");
  }
  for (int32_t id : batch.tokens) {
    if (id < 0 || id >= vocab) {
      return BadBatch(absl::StrCat("token ", id, " is not in [0, ", vocab, ")"));
    }
  }
  int32_t previous = -1;
  for (int32_t row : batch.logit_rows) {
    if (row <= previous || static_cast<size_t>(row) >= batch.tokens.size()) {
      return BadBatch("logit_rows is not ascending within the rows");
    }
    previous = row;
  }
  if (logits_size != batch.logit_rows.size() * static_cast<size_t>(vocab)) {
    return BadBatch("logits does not match logit_rows");
  }
  if (state.base.size() != layout.entries.size() || state.stride.size() != layout.entries.size()) {
    return BadBatch("state arrays of another layout");
  }
  return layout.has_kv() ? CheckPages(batch) : absl::OkStatus();
}

StepContext ForwardPass::MakeContext(const StepBatch& batch, const StateArrays& state) {
  StepContext step;
  step.rows.num_seqs = static_cast<int32_t>(batch.slots.size());
  step.rows.row_start = batch.row_start.data();
  step.rows.slot = batch.slots.data();
  step.positions = batch.positions.data();
  step.pages = batch.pages.data();
  step.page_start = batch.page_start.data();
  for (size_t i = 0; i < batch.slots.size(); ++i) {
    const int64_t tokens = batch.positions[i] + batch.row_start[i + 1] - batch.row_start[i];
    step.max_context = std::max(step.max_context, tokens);
  }
  step.state = &state;
  step.bf16 = dtype_ == kernels::DType::kBFloat16;
  step.launch.parallel = &parallel_;
  step.workspace = &workspace_;
  return step;
}

absl::Status ForwardPass::Embed(const StepContext& step, const int32_t* ids, float* x) const {
  kernels::EmbedParams params;
  params.rows = step.rows.num_rows();
  params.width = model_.hidden;
  params.ids = ids;
  params.table = weights_.embedding.data();
  params.dtype = dtype_;
  params.scale = model_.embedding_scale;
  params.y = x;
  params.round_to_bf16 = step.bf16;
  return kernels::Embed(params, step.launch);
}

// A residual held in float32 is normalised as it is, without rounding it to bfloat16 first: the
// order of the code the models were trained with.
absl::Status ForwardPass::Norm(const StepContext& step, int64_t rows, const float* x,
                               const Buffer& weight, float* y) const {
  kernels::RmsNormParams params;
  params.rows = rows;
  params.width = model_.hidden;
  params.x = x;
  params.y = y;
  params.x_stride = params.y_stride = model_.hidden;
  params.weight = weight.floats();
  params.eps = model_.norm_eps;
  params.round_to_bf16 = step.bf16;
  return kernels::RmsNorm(params, step.launch);
}

absl::Status ForwardPass::RunSteps(const StepContext& step, float* x) const {
  const int64_t rows = step.rows.num_rows();
  ANABRANCH_ASSIGN_OR_RETURN(float* normed, step.workspace->Take(rows * model_.hidden));
  ANABRANCH_ASSIGN_OR_RETURN(float* mixed, step.workspace->Take(rows * model_.hidden));
  kernels::AddScaledParams add;
  add.rows = rows;
  add.width = model_.hidden;
  add.x = x;
  add.y = mixed;
  add.scale = model_.residual_scale;
  add.round_to_bf16 = step.bf16 && !model_.residual_in_fp32;
  const size_t mark = step.workspace->mark();
  for (const ModelWeights::Step& weights : weights_.steps) {
    ANABRANCH_RETURN_IF_ERROR(Norm(step, rows, x, weights.norm, normed));
    ANABRANCH_RETURN_IF_ERROR(weights.mixer->Run(step, normed, mixed));
    ANABRANCH_RETURN_IF_ERROR(kernels::AddScaled(add, step.launch));
    step.workspace->Rewind(mark);
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::Head(const StepContext& step, absl::Span<const int32_t> rows,
                               const float* x, absl::Span<float> logits) const {
  if (rows.empty()) return absl::OkStatus();
  const int64_t count = static_cast<int64_t>(rows.size());
  const int64_t hidden = model_.hidden;
  ANABRANCH_ASSIGN_OR_RETURN(float* gathered, step.workspace->Take(count * hidden));
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(gathered + i * hidden, x + rows[i] * hidden, hidden * sizeof(float));
  }
  ANABRANCH_RETURN_IF_ERROR(Norm(step, count, gathered, weights_.final_norm, gathered));
  ANABRANCH_RETURN_IF_ERROR(
      weights_.head.Run(count, gathered, hidden, logits.data(), model_.vocab, step.launch));
  if (model_.logits_scale != 1) {
    constexpr int64_t kGrain = 1 << 14;
    step.launch.For(static_cast<int64_t>(logits.size()), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) logits[i] *= model_.logits_scale;
    });
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::Run(const StepBatch& batch, const StateArrays& state,
                              absl::Span<float> logits) {
  ANABRANCH_RETURN_IF_ERROR(workspace_.Reset());
  const StepContext step = MakeContext(batch, state);
  ANABRANCH_ASSIGN_OR_RETURN(float* x, workspace_.Take(step.rows.num_rows() * model_.hidden));
  ANABRANCH_RETURN_IF_ERROR(Embed(step, batch.tokens.data(), x));
  ANABRANCH_RETURN_IF_ERROR(RunSteps(step, x));
  return Head(step, batch.logit_rows, x, logits);
}

}  // namespace anabranch
