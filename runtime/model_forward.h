// The forward pass: the layers of one description over one packed batch.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "runtime/mixer.h"
#include "runtime/model.h"
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
  };
  Table embedding;          // [vocab, hidden]
  std::vector<Step> steps;  // of all layers, in order
  Buffer final_norm;
  Linear head;
  std::vector<std::shared_ptr<MappedFile>> files;  // that the embedding may point into
  size_t bytes = 0;
};

// INVALID_ARGUMENT if a batch does not fit together, has ids outside the vocabulary, too few pages
// or arrays of another layout: nothing has been touched then.
absl::Status CheckBatch(const StepBatch& batch, const StateArrays& state, const StateLayout& layout,
                        int64_t vocab, size_t logits_size);

class ForwardPass {
 public:
  ForwardPass(const ModelDescription& model, ModelWeights weights, int num_threads);

  // The batch has passed CheckBatch.
  absl::Status Run(const StepBatch& batch, const StateArrays& state, absl::Span<float> logits);
  size_t weight_bytes() const { return weights_.bytes; }

 private:
  StepContext MakeContext(const StepBatch& batch, const StateArrays& state);
  absl::Status Embed(const StepContext& step, const int32_t* ids, float* x) const;
  // y = rms_norm(x), dense [rows, width].
  absl::Status Norm(const StepContext& step, int64_t rows, int64_t width, const float* x,
                    const Buffer& weight, float* y) const;
  // y = the sum of the branches of x, both [rows, hidden].
  absl::Status RunBranches(const StepContext& step,
                           const std::vector<ModelWeights::Branch>& branches, const float* x,
                           float* y) const;
  // y = x + chain([x, embedded]), all but the chain's input [rows, hidden].
  absl::Status RunSideChain(const StepContext& step, const std::vector<ModelWeights::Stage>& chain,
                            const float* x, const float* embedded, float* y) const;
  absl::Status RunSteps(const StepContext& step, absl::Span<float* const> inner_sums,
                        float* x) const;
  absl::Status Head(const StepContext& step, absl::Span<const int32_t> rows, const float* x,
                    absl::Span<float> logits) const;

  const ModelDescription& model_;  // outlives this
  ModelWeights weights_;
  bool has_side_chains_ = false;
  TorchParallel parallel_;
  Workspace workspace_;
};

}  // namespace anabranch
