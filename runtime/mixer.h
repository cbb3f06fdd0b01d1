// A mixer is what a residual step computes: Mamba-1, Mamba-2, attention, an MLP, experts. It names
// the tensors it needs, declares the state it keeps between tokens, and runs one packed batch.
// Everything about saving, restoring and sharing state follows from the declaration.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/causal_conv1d.h"
#include "kernels/launch.h"
#include "runtime/model_description.h"
#include "runtime/state_layout.h"
#include "runtime/step_context.h"
#include "runtime/tensor_memory.h"
#include "runtime/weights.h"

namespace anabranch {

using kernels::Acts;
using kernels::ConstActs;

// What a mixer reads: rows of the step.
struct MixerInput {
  ConstActs x;  // [rows, width], dense
  // Not null, which only mixers that norm their input are given: x is to be normed with it first.
  const float* norm_weight = nullptr;
  float norm_eps = 0;
  Acts normed;  // room for that
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  // Appends this mixer's entries and remembers where they are.
  virtual void DeclareState(int32_t layer, StateLayout& layout) = 0;
  // y [rows, hidden] = mixer(x); updates the sequences' state. Rows of x are of width `hidden`
  // unless the description gives another one. With `add`, which only devices whose products can
  // accumulate ask for and only where CanAdd(), y is float32 and mixer(x) is added to it.
  virtual absl::Status Run(const StepContext& step, const MixerInput& in, Acts y,
                           bool add) const = 0;
  // Whether it takes input that is to be normed first: then a step of few rows norms it in the
  // kernel of the first product.
  virtual bool NormsInput() const { return false; }
  // Brings what is pending of the step's sequences into their state; reads no rows.
  virtual absl::Status Fold(const StepContext& /*step*/) const { return absl::OkStatus(); }
  // Whether the last thing that Run does is a linear layer.
  virtual bool CanAdd() const { return true; }
};

// For each kind of mixer, in its own file: the tensors under `prefix`, and the mixer made of them.
void ListTensors(const Mamba1Spec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const Mamba2Spec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const AttentionSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const GatedMlpSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const MlpSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const MoeSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);
void ListTensors(const LinearSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out);

// All tensors of a step, norms included.
void ListTensors(const ResidualStep& step, int64_t hidden, std::vector<ExpectedTensor>& out);

using MixerOr = absl::StatusOr<std::unique_ptr<Mixer>>;
MixerOr MakeMixer(const Mamba1Spec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const Mamba2Spec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const AttentionSpec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const GatedMlpSpec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const MlpSpec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const MoeSpec& spec, const std::string& prefix, WeightReader& weights);
MixerOr MakeMixer(const LinearSpec& spec, const std::string& prefix, WeightReader& weights);

// y [rows of the step, y_stride] = the layer of the input, normed first if it is to be.
absl::Status Project(const StepContext& step, const MixerInput& in, const Linear& layer, Acts y,
                     int64_t y_stride);
// The same, and then the convolution of y's columns from `first` on, in a mixer whose windows are
// of `dtype`. Of `conv` all but u. The columns may be left unwritten.
absl::Status ProjectAndConvolve(const StepContext& step, const MixerInput& in, const Linear& layer,
                                kernels::DType dtype, Acts y, int64_t y_stride, int64_t first,
                                kernels::CausalConv1dParams conv);

// INVALID_ARGUMENT if a model's states cannot be kept so.
absl::Status CheckStateDType(kernels::DType dtype, int64_t state_dim);
// Recurrent tensors, in a slot and in a stored state alike.
StateEntry RecurrentEntry(int32_t layer, kernels::DType dtype, std::vector<int64_t> shape);
// Windows: float32 in slots, stored in the compute dtype. ProjectAndConvolve makes that lossless:
// it rounds what a convolution reads unless that is bfloat16 already.
StateEntry WindowEntry(int32_t layer, int32_t conv_width, int64_t channels, kernels::DType dtype);
// A = -exp(A_log), in float32: for the host, which merges states, and where the kernels run.
struct Decay {
  Buffer host, placed;
};
absl::StatusOr<Decay> ReadDecay(const std::string& name, WeightReader& weights);

}  // namespace anabranch
