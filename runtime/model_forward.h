// The forward pass: the layers of one description over one packed batch.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "runtime/device.h"
#include "runtime/mixer.h"
#include "runtime/model.h"
#include "runtime/step_inputs.h"
#include "runtime/token_drawer.h"
#include "runtime/weights.h"

namespace anabranch {

// Everything a loaded model holds besides its names.
struct ModelWeights {
  struct Branch {
    std::unique_ptr<Mixer> mixer;
    float in_scale = 1, out_scale = 1;
  };
  struct Stage {
    Buffer norm;  // empty: none
    std::unique_ptr<Mixer> mixer;
  };
  struct Step {
    Buffer norm;
    std::vector<Branch> branches;
    std::vector<Stage> side_chain;
    int32_t layer = 0;
  };
  Table embedding;          // [vocab, hidden]
  std::vector<Step> steps;  // of all layers, in order
  Buffer final_norm;
  Linear head;
  std::shared_ptr<const void> stored;  // what the embedding may point into
  size_t bytes = 0;
};

class ForwardPass {
 public:
  ForwardPass(const ModelDescription& model, ModelWeights weights, std::shared_ptr<Device> device,
              kernels::DType compute);

  // The batch has passed CheckBatch. `state` lies on the device; `logits` and the inner sums are in
  // host memory.
  absl::Status Run(const StepBatch& batch, const StateArrays& state, absl::Span<float> logits);
  // As in Model, on a device that draws tokens.
  absl::Status RunAndDraw(const StepBatch& batch, const StateArrays& state, int32_t valid_vocab,
                          absl::Span<DrawnToken> drawn);
  // As in Model, of a batch that has passed CheckFold. What the last step left stays readable.
  absl::Status Fold(const StepBatch& batch, const StateArrays& state);
  absl::Status ReadLogits(int64_t first, absl::Span<float> logits) const;
  absl::Status CopyLogits(int64_t first, absl::Span<float* const> to) const;
  absl::StatusOr<DrawnToken> Draw(absl::Span<const float> logits, int32_t valid_vocab,
                                  const kernels::RowSampling& rule) {
    return drawer_.DrawOne(logits, valid_vocab, rule);
  }
  size_t weight_bytes() const { return weights_.bytes; }

 private:
  absl::Status Embed(const StepContext& step, float* x) const;
  // y = rms_norm(x), dense [rows, width].
  absl::Status Norm(const StepContext& step, int64_t rows, int64_t width, ConstActs x,
                    const Buffer& weight, Acts y) const;
  // y = the sum of the branches of x, both [rows, hidden].
  absl::Status RunBranches(const StepContext& step,
                           const std::vector<ModelWeights::Branch>& branches, ConstActs x,
                           float* y) const;
  // y = x + chain([x, embedded]), all but the chain's input [rows, hidden].
  absl::Status RunSideChain(const StepContext& step, const std::vector<ModelWeights::Stage>& chain,
                            const float* x, const float* embedded, float* y) const;
  bool AddsDirectly(const ModelWeights::Step& step) const;
  // Of an inner layer's directions: `all` [seqs, hidden] are added to; `kept` [checkpoints, hidden]
  // get what the sums are there. Together one array.
  struct Sums {
    float *all = nullptr, *kept = nullptr;  // null: not wanted
  };
  absl::Status TellPassed(const StepContext& step, const ModelWeights::Step& weights) const;
  absl::Status RunSteps(const StepContext& step, const Sums& sums, float* x) const;
  absl::Status Head(const StepContext& step, int64_t count, const float* x, float* logits) const;
  // All of a step that runs on the device, to logits_.
  absl::Status Compute(const StepContext& step, int64_t logit_rows, const Sums& sums) const;
  // Takes in what the step reads. Recorded steps are forgotten if one of its places has moved.
  absl::Status Prepare(const StepBatch& batch, const StateArrays& state);
  void ForgetReplaysIf(bool moved, const StateArrays& state);
  absl::Status FoldAll(const StepContext& step) const;
  // `host_logits`: null on a device with memory of its own, where logits_ tells where they lie.
  absl::Status RunStep(const StepBatch& batch, const StateArrays& state, float* host_logits);
  absl::StatusOr<Sums> SendSums(const StepBatch& batch);
  absl::Status QueueSums(const StepBatch& batch, const Sums& sums);
  void KeepSums(const StepBatch& batch) const;

  const ModelDescription& model_;  // outlives this
  ModelWeights weights_;
  bool has_side_chains_ = false;
  const std::shared_ptr<Device> device_;
  StepInputs inputs_;
  Workspace workspace_;
  TokenDrawer drawer_;
  Buffer sums_;                         // inner sums on their way, [seqs + checkpoints, hidden]
  const void* state_memory_ = nullptr;  // of the last step
  float* logits_ = nullptr;             // of the last step, [logit_rows, vocab]
  // Ids that may be drawn in the step that runs; -1: no tokens are drawn.
  int32_t valid_vocab_ = -1, recorded_valid_vocab_ = -1;
};

}  // namespace anabranch
