#include "runtime/model_forward.h"

#include <algorithm>
#include <cmath>
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

// y = scale * x, dense [rows, width]; y may be x.
absl::Status Multiply(const StepContext& step, int64_t rows, int64_t width, const float* x,
                      float scale, float* y) {
  kernels::ScaleParams params;
  params.rows = rows;
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.scale = scale;
  params.y = y;
  return kernels::Scale(params, step.launch);
}

// x += scale * y, dense [rows of the step, width].
absl::Status Add(const StepContext& step, int64_t width, const float* y, float scale, float* x) {
  kernels::AddScaledParams params;
  params.rows = step.rows.num_rows();
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.y = y;
  params.scale = scale;
  return kernels::AddScaled(params, step.launch);
}

// The step whose residual says best what a text is about: at two thirds of the depth. The last ones
// are about the next token.
const ModelWeights::Step* InnerStep(const ModelWeights& weights) {
  const size_t steps = weights.steps.size();
  return steps == 0 ? nullptr : &weights.steps[(2 * steps + 2) / 3 - 1];
}

// Adds each sequence's rows to its sum, in their order, so that the sum does not depend on how they
// were batched. A row counts by its direction: a few tokens have a residual many times larger than
// all others, and would be the whole sum.
void AddRows(const StepContext& step, absl::Span<float* const> sums, int64_t hidden,
             const float* x) {
  for (size_t seq = 0; seq < sums.size(); ++seq) {
    if (sums[seq] == nullptr) continue;
    for (int32_t row = step.rows.row_start[seq]; row < step.rows.row_start[seq + 1]; ++row) {
      const float* const from = x + row * hidden;
      float square = 0;
      for (int64_t i = 0; i < hidden; ++i) square += from[i] * from[i];
      const float scale = 1 / std::sqrt(square + 1e-12f);
      for (int64_t i = 0; i < hidden; ++i) sums[seq][i] += scale * from[i];
    }
  }
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
  if (!batch.inner_sums.empty() && batch.inner_sums.size() != seqs) {
    return BadBatch("inner_sums does not match slots");
  }
  if (state.base.size() != layout.entries.size() || state.stride.size() != layout.entries.size()) {
    return BadBatch("state arrays of another layout");
  }
  return layout.has_kv() ? CheckPages(batch) : absl::OkStatus();
}

ForwardPass::ForwardPass(const ModelDescription& model, ModelWeights weights, int num_threads)
    : model_(model), weights_(std::move(weights)), parallel_(num_threads) {
  for (const ModelWeights::Step& step : weights_.steps) {
    has_side_chains_ = has_side_chains_ || !step.side_chain.empty();
  }
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
  params.dtype = weights_.embedding.dtype();
  params.scale = model_.embedding_scale;
  params.y = x;
  return kernels::Embed(params, step.launch);
}

absl::Status ForwardPass::Norm(const StepContext& step, int64_t rows, int64_t width, const float* x,
                               const Buffer& weight, float* y) const {
  kernels::RmsNormParams params;
  params.rows = rows;
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.y = y;
  params.weight = weight.floats();
  params.eps = model_.norm_eps;
  return kernels::RmsNorm(params, step.launch);
}

absl::Status ForwardPass::RunBranches(const StepContext& step,
                                      const std::vector<ModelWeights::Branch>& branches,
                                      const float* x, float* y) const {
  const int64_t rows = step.rows.num_rows(), hidden = model_.hidden;
  const size_t mark = step.workspace->mark();
  for (const ModelWeights::Branch& branch : branches) {
    const bool first = &branch == &branches.front();
    float *scaled = nullptr, *out = y;
    if (branch.in_scale != 1) {
      ANABRANCH_ASSIGN_OR_RETURN(scaled, step.workspace->Take(rows * hidden));
      ANABRANCH_RETURN_IF_ERROR(Multiply(step, rows, hidden, x, branch.in_scale, scaled));
    }
    if (!first) {
      ANABRANCH_ASSIGN_OR_RETURN(out, step.workspace->Take(rows * hidden));
    }
    ANABRANCH_RETURN_IF_ERROR(branch.mixer->Run(step, scaled == nullptr ? x : scaled, out));
    if (!first) {
      ANABRANCH_RETURN_IF_ERROR(Add(step, hidden, out, branch.out_scale, y));
    } else if (branch.out_scale != 1) {
      ANABRANCH_RETURN_IF_ERROR(Multiply(step, rows, hidden, y, branch.out_scale, y));
    }
    step.workspace->Rewind(mark);
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::RunSideChain(const StepContext& step,
                                       const std::vector<ModelWeights::Stage>& chain,
                                       const float* x, const float* embedded, float* y) const {
  const int64_t rows = step.rows.num_rows(), hidden = model_.hidden;
  const size_t mark = step.workspace->mark();
  ANABRANCH_ASSIGN_OR_RETURN(float* in, step.workspace->Take(rows * 2 * hidden));
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(x + row * hidden, hidden, in + row * 2 * hidden);
    std::copy_n(embedded + row * hidden, hidden, in + row * 2 * hidden + hidden);
  }
  int64_t width = 2 * hidden;
  for (const ModelWeights::Stage& stage : chain) {
    ANABRANCH_ASSIGN_OR_RETURN(float* out, step.workspace->Take(rows * hidden));
    if (stage.norm.size() > 0) {
      ANABRANCH_RETURN_IF_ERROR(Norm(step, rows, width, in, stage.norm, in));
    }
    ANABRANCH_RETURN_IF_ERROR(stage.mixer->Run(step, in, out));
    in = out;
    width = hidden;
  }
  std::copy_n(x, rows * hidden, y);
  ANABRANCH_RETURN_IF_ERROR(Add(step, hidden, in, 1, y));
  step.workspace->Rewind(mark);
  return absl::OkStatus();
}

absl::Status ForwardPass::RunSteps(const StepContext& step, absl::Span<float* const> inner_sums,
                                   float* x) const {
  const int64_t rows = step.rows.num_rows();
  ANABRANCH_ASSIGN_OR_RETURN(float* normed, step.workspace->Take(rows * model_.hidden));
  ANABRANCH_ASSIGN_OR_RETURN(float* mixed, step.workspace->Take(rows * model_.hidden));
  float* embedded = nullptr;
  if (has_side_chains_) {
    ANABRANCH_ASSIGN_OR_RETURN(embedded, step.workspace->Take(rows * model_.hidden));
    std::copy_n(x, rows * model_.hidden, embedded);
  }
  for (const ModelWeights::Step& weights : weights_.steps) {
    const float* in = x;
    if (!weights.side_chain.empty()) {
      ANABRANCH_RETURN_IF_ERROR(RunSideChain(step, weights.side_chain, x, embedded, normed));
      in = normed;
    }
    ANABRANCH_RETURN_IF_ERROR(Norm(step, rows, model_.hidden, in, weights.norm, normed));
    ANABRANCH_RETURN_IF_ERROR(RunBranches(step, weights.branches, normed, mixed));
    ANABRANCH_RETURN_IF_ERROR(Add(step, model_.hidden, mixed, model_.residual_scale, x));
    if (&weights == InnerStep(weights_)) AddRows(step, inner_sums, model_.hidden, x);
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
  ANABRANCH_RETURN_IF_ERROR(Norm(step, count, hidden, gathered, weights_.final_norm, gathered));
  ANABRANCH_RETURN_IF_ERROR(
      weights_.head.Run(count, gathered, hidden, logits.data(), model_.vocab, step.launch));
  if (model_.logits_scale == 1) return absl::OkStatus();
  return Multiply(step, count, model_.vocab, logits.data(), model_.logits_scale, logits.data());
}

absl::Status ForwardPass::Run(const StepBatch& batch, const StateArrays& state,
                              absl::Span<float> logits) {
  ANABRANCH_RETURN_IF_ERROR(workspace_.Reset());
  const StepContext step = MakeContext(batch, state);
  ANABRANCH_ASSIGN_OR_RETURN(float* x, workspace_.Take(step.rows.num_rows() * model_.hidden));
  ANABRANCH_RETURN_IF_ERROR(Embed(step, batch.tokens.data(), x));
  ANABRANCH_RETURN_IF_ERROR(RunSteps(step, batch.inner_sums, x));
  return Head(step, batch.logit_rows, x, logits);
}

}  // namespace anabranch
