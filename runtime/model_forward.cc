#include "runtime/model_forward.h"

#include <algorithm>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "runtime/replay_key.h"
#include "runtime/step_progress.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// y = scale * x, dense [rows, width]; y may be x.
absl::Status Multiply(const StepContext& step, int64_t rows, int64_t width, ConstActs x,
                      float scale, Acts y) {
  kernels::ScaleParams params;
  params.rows = rows;
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.scale = scale;
  params.y = y;
  return step.kernels->scale(params, step.launch);
}

// x += scale * y, dense [rows of the step, width].
absl::Status Add(const StepContext& step, int64_t width, ConstActs y, float scale, float* x) {
  kernels::AddScaledParams params;
  params.rows = step.rows.num_rows();
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.y = y;
  params.scale = scale;
  return step.kernels->add_scaled(params, step.launch);
}

// y[r] = x[row[r]], or x[r] without `row`; x is dense.
absl::Status CopyRows(const StepContext& step, int64_t rows, int64_t width, ConstActs x,
                      const int32_t* row, Acts y, int64_t y_stride) {
  return step.kernels->copy_rows({rows, width, x, width, row, y, y_stride}, step.launch);
}

// The step whose residual says best what a text is about: at two thirds of the depth. The last ones
// are about the next token.
const ModelWeights::Step* InnerStep(const ModelWeights& weights) {
  const size_t steps = weights.steps.size();
  return steps == 0 ? nullptr : &weights.steps[(2 * steps + 2) / 3 - 1];
}

}  // namespace

ForwardPass::ForwardPass(const ModelDescription& model, ModelWeights weights,
                         std::shared_ptr<Device> device, kernels::DType compute)
    : model_(model),
      weights_(std::move(weights)),
      device_(std::move(device)),
      inputs_(device_),
      workspace_(device_, device_->activations(compute)),
      drawer_(device_, model.vocab) {
  for (const ModelWeights::Step& step : weights_.steps) {
    has_side_chains_ = has_side_chains_ || !step.side_chain.empty();
  }
}

absl::Status ForwardPass::Embed(const StepContext& step, float* x) const {
  kernels::EmbedParams params;
  params.rows = step.rows.num_rows();
  params.width = model_.hidden;
  params.ids = inputs_.tokens();
  params.table = weights_.embedding.data();
  params.dtype = weights_.embedding.dtype();
  params.scale = model_.embedding_scale;
  params.y = x;
  return step.kernels->embed(params, step.launch);
}

absl::Status ForwardPass::Norm(const StepContext& step, int64_t rows, int64_t width, ConstActs x,
                               const Buffer& weight, Acts y) const {
  kernels::RmsNormParams params;
  params.rows = rows;
  params.width = params.x_stride = params.y_stride = width;
  params.x = x;
  params.y = y;
  params.weight = weight.floats();
  params.eps = model_.norm_eps;
  return step.kernels->rms_norm(params, step.launch);
}

absl::Status ForwardPass::RunBranches(const StepContext& step,
                                      const std::vector<ModelWeights::Branch>& branches,
                                      ConstActs x, float* y) const {
  const int64_t rows = step.rows.num_rows(), hidden = model_.hidden;
  const size_t mark = step.workspace->mark();
  for (const ModelWeights::Branch& branch : branches) {
    const bool first = &branch == &branches.front();
    ConstActs in = x;
    float* out = y;
    if (branch.in_scale != 1) {
      ANABRANCH_ASSIGN_OR_RETURN(const Acts scaled, step.workspace->Take(rows * hidden));
      ANABRANCH_RETURN_IF_ERROR(Multiply(step, rows, hidden, x, branch.in_scale, scaled));
      in = scaled;
    }
    if (!first) {
      ANABRANCH_ASSIGN_OR_RETURN(out, step.workspace->TakeFloats(rows * hidden));
    }
    ANABRANCH_RETURN_IF_ERROR(branch.mixer->Run(step, {in}, out, /*add=*/false));
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
  ANABRANCH_ASSIGN_OR_RETURN(Acts in, step.workspace->Take(rows * 2 * hidden));
  ANABRANCH_RETURN_IF_ERROR(CopyRows(step, rows, hidden, x, nullptr, in, 2 * hidden));
  ANABRANCH_RETURN_IF_ERROR(
      CopyRows(step, rows, hidden, embedded, nullptr, in + hidden, 2 * hidden));
  int64_t width = 2 * hidden;
  for (const ModelWeights::Stage& stage : chain) {
    ANABRANCH_ASSIGN_OR_RETURN(const Acts out, step.workspace->Take(rows * hidden));
    if (stage.norm.size() > 0) {
      ANABRANCH_RETURN_IF_ERROR(Norm(step, rows, width, in, stage.norm, in));
    }
    ANABRANCH_RETURN_IF_ERROR(stage.mixer->Run(step, {in}, out, /*add=*/false));
    in = out;
    width = hidden;
  }
  ANABRANCH_RETURN_IF_ERROR(CopyRows(step, rows, hidden, x, nullptr, y, hidden));
  ANABRANCH_RETURN_IF_ERROR(Add(step, hidden, in, 1, y));
  step.workspace->Rewind(mark);
  return absl::OkStatus();
}

// Whether the last product of the step can go straight into the residual. Not on the CPU, whose
// results would have other last bits.
bool ForwardPass::AddsDirectly(const ModelWeights::Step& step) const {
  const ModelWeights::Branch& branch = step.branches.front();
  return !device_->in_host_memory() && step.branches.size() == 1 && branch.in_scale == 1 &&
         branch.out_scale == 1 && model_.residual_scale == 1 && branch.mixer->CanAdd();
}

// Of the last step of a layer: that the layer is queued.
absl::Status ForwardPass::TellPassed(const StepContext& step,
                                     const ModelWeights::Step& weights) const {
  if (step.progress == nullptr) return absl::OkStatus();
  const ModelWeights::Step* const next = &weights + 1;
  const bool last = &weights == &weights_.steps.back() || next->layer != weights.layer;
  return last ? step.progress->Passed(*device_, weights.layer) : absl::OkStatus();
}

absl::Status ForwardPass::RunSteps(const StepContext& step, const Sums& sums, float* x) const {
  const int64_t rows = step.rows.num_rows(), hidden = model_.hidden;
  ANABRANCH_ASSIGN_OR_RETURN(const Acts normed, step.workspace->Take(rows * hidden));
  ANABRANCH_ASSIGN_OR_RETURN(float* mixed, step.workspace->TakeFloats(rows * hidden));
  float *embedded = nullptr, *joined = nullptr;
  if (has_side_chains_) {
    ANABRANCH_ASSIGN_OR_RETURN(joined, step.workspace->TakeFloats(rows * hidden));
    ANABRANCH_ASSIGN_OR_RETURN(embedded, step.workspace->TakeFloats(rows * hidden));
    ANABRANCH_RETURN_IF_ERROR(CopyRows(step, rows, hidden, x, nullptr, embedded, hidden));
  }
  for (const ModelWeights::Step& weights : weights_.steps) {
    const float* in = x;
    if (!weights.side_chain.empty()) {
      ANABRANCH_RETURN_IF_ERROR(RunSideChain(step, weights.side_chain, x, embedded, joined));
      in = joined;
    }
    const Mixer& mixer = *weights.branches.front().mixer;
    const bool adds = AddsDirectly(weights), norms = adds && mixer.NormsInput();
    if (!norms) ANABRANCH_RETURN_IF_ERROR(Norm(step, rows, hidden, in, weights.norm, normed));
    if (adds) {
      const size_t mark = step.workspace->mark();
      const MixerInput input = norms
                                   ? MixerInput{in, weights.norm.floats(), model_.norm_eps, normed}
                                   : MixerInput{normed};
      ANABRANCH_RETURN_IF_ERROR(mixer.Run(step, input, x, /*add=*/true));
      step.workspace->Rewind(mark);
    } else {
      ANABRANCH_RETURN_IF_ERROR(RunBranches(step, weights.branches, normed, mixed));
      ANABRANCH_RETURN_IF_ERROR(Add(step, hidden, mixed, model_.residual_scale, x));
    }
    ANABRANCH_RETURN_IF_ERROR(TellPassed(step, weights));
    if (sums.all == nullptr || &weights != InnerStep(weights_)) continue;
    ANABRANCH_RETURN_IF_ERROR(step.kernels->sum_directions(
        {step.rows, hidden, x, sums.all, step.checkpoints, sums.kept}, step.launch));
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::Head(const StepContext& step, int64_t count, const float* x,
                               float* logits) const {
  if (count == 0) return absl::OkStatus();
  const int64_t hidden = model_.hidden;
  ANABRANCH_ASSIGN_OR_RETURN(float* gathered, step.workspace->TakeFloats(count * hidden));
  ANABRANCH_ASSIGN_OR_RETURN(const Acts normed, step.workspace->Take(count * hidden));
  ANABRANCH_RETURN_IF_ERROR(
      CopyRows(step, count, hidden, x, inputs_.logit_rows(), gathered, hidden));
  ANABRANCH_RETURN_IF_ERROR(Norm(step, count, hidden, gathered, weights_.final_norm, normed));
  ANABRANCH_RETURN_IF_ERROR(weights_.head.Run(count, normed, hidden, logits, model_.vocab, step));
  if (model_.logits_scale == 1) return absl::OkStatus();
  return Multiply(step, count, model_.vocab, logits, model_.logits_scale, logits);
}

// The running sums go to the device and come back, so that they are the same however the rows were
// split into steps.
absl::StatusOr<ForwardPass::Sums> ForwardPass::SendSums(const StepBatch& batch) {
  Sums sums;
  const auto wanted = [](const float* sum) { return sum != nullptr; };
  if (std::none_of(batch.inner_sums.begin(), batch.inner_sums.end(), wanted)) return sums;
  const size_t hidden = model_.hidden, seqs = batch.inner_sums.size();
  const size_t floats = (seqs + batch.checkpoint_rows.size()) * hidden;
  if (floats * sizeof(float) > sums_.size()) {
    ANABRANCH_ASSIGN_OR_RETURN(sums_, device_->AllocateHost(floats * sizeof(float)));
  }
  for (size_t seq = 0; seq < seqs; ++seq) {
    float* const packed = sums_.floats() + seq * hidden;
    if (batch.inner_sums[seq] == nullptr) {
      std::fill_n(packed, hidden, 0.0f);
    } else {
      std::copy_n(batch.inner_sums[seq], hidden, packed);
    }
  }
  ANABRANCH_ASSIGN_OR_RETURN(sums.all, workspace_.TakeFloats(static_cast<int64_t>(floats)));
  if (floats > seqs * hidden) sums.kept = sums.all + seqs * hidden;
  ANABRANCH_RETURN_IF_ERROR(device_->Queue(
      CopyDirection::kToDevice, {sums_.data(), sums.all, seqs * hidden * sizeof(float)}));
  return sums;
}

absl::Status ForwardPass::QueueSums(const StepBatch& batch, const Sums& sums) {
  if (sums.all == nullptr) return absl::OkStatus();
  const size_t rows = batch.inner_sums.size() + batch.checkpoint_rows.size();
  return device_->Queue(CopyDirection::kToHost,
                        {sums.all, sums_.data(), rows * model_.hidden * sizeof(float)});
}

void ForwardPass::KeepSums(const StepBatch& batch) const {
  const float* packed = sums_.floats();
  for (const auto& list : {batch.inner_sums, batch.checkpoint_sums}) {
    for (float* const sum : list) {
      if (sum != nullptr) std::copy_n(packed, model_.hidden, sum);
      packed += model_.hidden;
    }
  }
}

absl::Status ForwardPass::Compute(const StepContext& step, int64_t logit_rows,
                                  const Sums& sums) const {
  ANABRANCH_ASSIGN_OR_RETURN(float* x,
                             step.workspace->TakeFloats(step.rows.num_rows() * model_.hidden));
  ANABRANCH_RETURN_IF_ERROR(Embed(step, x));
  ANABRANCH_RETURN_IF_ERROR(RunSteps(step, sums, x));
  ANABRANCH_RETURN_IF_ERROR(Head(step, logit_rows, x, logits_));
  if (valid_vocab_ < 0) return absl::OkStatus();
  return drawer_.Queue(logits_, logit_rows, valid_vocab_, inputs_.rules());
}

absl::Status ForwardPass::Prepare(const StepBatch& batch, const StateArrays& state) {
  ANABRANCH_ASSIGN_OR_RETURN(bool moved, workspace_.Reset());
  ANABRANCH_ASSIGN_OR_RETURN(const bool inputs_moved, inputs_.Load(batch));
  if (valid_vocab_ >= 0) {
    ANABRANCH_ASSIGN_OR_RETURN(const bool drawer_moved, drawer_.Reserve(batch.logit_rows.size()));
    moved = moved || drawer_moved || valid_vocab_ != recorded_valid_vocab_;
    recorded_valid_vocab_ = valid_vocab_;
  }
  ForgetReplaysIf(moved || inputs_moved, state);
  return absl::OkStatus();
}

void ForwardPass::ForgetReplaysIf(bool moved, const StateArrays& state) {
  const void* state_memory = state.base.empty() ? nullptr : state.base.front();
  if (std::exchange(state_memory_, state_memory) != state_memory || moved) {
    device_->ForgetReplays();
  }
}

absl::Status ForwardPass::RunStep(const StepBatch& batch, const StateArrays& state,
                                  float* host_logits) {
  ANABRANCH_RETURN_IF_ERROR(Prepare(batch, state));
  StepContext step;
  inputs_.Describe(step);
  step.state = &state;
  step.checkpoint_ring = batch.checkpoint_ring;
  step.progress = batch.progress;
  step.kernels = &device_->kernels();
  step.launch = device_->launch();
  step.workspace = &workspace_;

  const auto logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  logits_ = host_logits;
  if (logits_ == nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(logits_, workspace_.TakeFloats(logit_rows * model_.vocab));
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Sums sums, SendSums(batch));
  const auto compute = [&] { return Compute(step, logit_rows, sums); };
  const bool alike = step.deferring == 0 || step.deferring == step.rows.num_seqs;
  const bool decodes = step.rows.longest == 1 && logit_rows == step.rows.num_seqs && alike &&
                       batch.checkpoint_rows.empty();
  const bool attends = !batch.pages.empty();
  if (decodes && attends) step.max_context = RecordedContext(step.max_context);
  const int64_t key = ReplayKey({step.rows.num_seqs, attends ? step.max_context : 0,
                                 step.deferring > 0, valid_vocab_ >= 0, sums.all != nullptr});
  ANABRANCH_RETURN_IF_ERROR(decodes ? device_->Replay(key, compute) : compute());
  ANABRANCH_RETURN_IF_ERROR(QueueSums(batch, sums));
  if (valid_vocab_ >= 0) ANABRANCH_RETURN_IF_ERROR(drawer_.QueueResults());
  ANABRANCH_RETURN_IF_ERROR(device_->Wait());
  if (sums.all != nullptr) KeepSums(batch);
  return absl::OkStatus();
}

absl::Status ForwardPass::FoldAll(const StepContext& step) const {
  for (const ModelWeights::Step& weights : weights_.steps) {
    for (const ModelWeights::Branch& branch : weights.branches) {
      ANABRANCH_RETURN_IF_ERROR(branch.mixer->Fold(step));
    }
    for (const ModelWeights::Stage& stage : weights.side_chain) {
      ANABRANCH_RETURN_IF_ERROR(stage.mixer->Fold(step));
    }
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::Fold(const StepBatch& batch, const StateArrays& state) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool moved, inputs_.Load(batch));
  ForgetReplaysIf(moved, state);
  StepContext step;
  inputs_.Describe(step);
  step.state = &state;
  step.kernels = &device_->kernels();
  step.launch = device_->launch();
  const int64_t key = -1 - int64_t{step.rows.num_seqs};  // none of a step's
  ANABRANCH_RETURN_IF_ERROR(device_->Replay(key, [&] { return FoldAll(step); }));
  return device_->Wait();
}

absl::Status ForwardPass::Run(const StepBatch& batch, const StateArrays& state,
                              absl::Span<float> logits) {
  valid_vocab_ = -1;
  const bool on_host = device_->in_host_memory();
  ANABRANCH_RETURN_IF_ERROR(RunStep(batch, state, on_host ? logits.data() : nullptr));
  return on_host ? absl::OkStatus() : ReadLogits(0, logits);
}

absl::Status ForwardPass::RunAndDraw(const StepBatch& batch, const StateArrays& state,
                                     int32_t valid_vocab, absl::Span<DrawnToken> drawn) {
  valid_vocab_ = valid_vocab;
  ANABRANCH_RETURN_IF_ERROR(RunStep(batch, state, nullptr));
  drawer_.Results(drawn);
  return absl::OkStatus();
}

absl::Status ForwardPass::ReadLogits(int64_t first, absl::Span<float> logits) const {
  const CopyPart part{logits_ + first * model_.vocab, logits.data(), logits.size() * sizeof(float)};
  return device_->Copy(CopyDirection::kToHost, {part});
}

absl::Status ForwardPass::CopyLogits(int64_t first, absl::Span<float* const> to) const {
  std::vector<CopyPart> parts;
  for (float* const row : to) {
    parts.push_back({logits_ + first++ * model_.vocab, row, model_.vocab * sizeof(float)});
  }
  return device_->Copy(CopyDirection::kWithin, parts);
}

}  // namespace anabranch
