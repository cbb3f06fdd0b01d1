#include "tests/bench/ceilings.h"

#include <cstring>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "kernels/gemm.h"
#include "runtime/float_convert.h"
#include "runtime/tensor_memory.h"
#include "runtime/weights.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"

namespace anabranch::bench {
namespace {

constexpr int kRuns = 5;

absl::StatusOr<double> MedianSeconds(absl::FunctionRef<absl::Status()> body) {
  std::vector<double> seconds;
  for (int run = 0; run <= kRuns; ++run) {
    absl::Status status;
    const double once = TimeOnce([&] { status = body(); });
    ANABRANCH_RETURN_IF_ERROR(status);
    if (run > 0) seconds.push_back(once);  // the first one warms up
  }
  return Percentile(seconds, 0.5);
}

absl::StatusOr<double> CopyRate(Device& device, CopyDirection direction, size_t bytes) {
  const bool from_host = direction == CopyDirection::kToDevice;
  const bool to_host = direction == CopyDirection::kToHost;
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer from,
                             from_host ? device.AllocateHost(bytes) : device.Allocate(bytes));
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer to,
                             to_host ? device.AllocateHost(bytes) : device.Allocate(bytes));
  if (from_host) std::memset(from.data(), 1, bytes);
  ANABRANCH_ASSIGN_OR_RETURN(const double seconds, MedianSeconds([&] {
                               const CopyPart part{from.data(), to.data(), bytes};
                               return device.Copy(direction, {part});
                             }));
  return static_cast<double>(bytes) / seconds;
}

// [n, n] random elements on the device.
absl::StatusOr<Buffer> RandomMatrix(Device& device, kernels::DType dtype, bool packed, int64_t n) {
  std::vector<float> values(n * n);
  uint64_t x = 88172645463325252u;
  for (float& value : values) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    value = static_cast<float>(x >> 40) / static_cast<float>(1 << 23) - 1;
  }
  std::vector<uint16_t> halves;
  const void* source = values.data();
  if (dtype == kernels::DType::kBFloat16) {
    halves.resize(values.size());
    ToBFloat16(values.data(), n * n, halves.data());
    source = halves.data();
  }
  const MatrixLayout layout = packed ? MatrixLayout::kPanels : MatrixLayout::kRowMajor;
  const size_t bytes = MatrixBytes(layout, dtype, n, n);
  ANABRANCH_ASSIGN_OR_RETURN(Buffer matrix, device.Allocate(bytes));
  if (packed) {
    kernels::PackMatrix(dtype, source, n, n, matrix.data());
    return matrix;
  }
  const CopyPart part{source, matrix.data(), bytes};
  ANABRANCH_RETURN_IF_ERROR(device.Copy(CopyDirection::kToDevice, {part}));
  return matrix;
}

absl::StatusOr<double> MatrixRate(Device& device, kernels::DType dtype) {
  const bool host = device.in_host_memory();
  const int64_t n = host ? 512 : 8192;
  const int products = host ? 1 : 8;
  const kernels::DType acts = device.activations(dtype);
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer x, RandomMatrix(device, acts, false, n));
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer w, RandomMatrix(device, dtype, host, n));
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer y, device.Allocate(n * n * kernels::ElementBytes(acts)));
  kernels::GemmParams params;
  params.m = params.x_stride = params.y_stride = n;
  params.x = {x.data(), acts};
  params.w = {w.data(), dtype, n, n};
  params.y = {y.data(), acts};
  ANABRANCH_ASSIGN_OR_RETURN(
      const double seconds, MedianSeconds([&]() -> absl::Status {
        for (int i = 0; i < products; ++i) {
          ANABRANCH_RETURN_IF_ERROR(device.kernels().gemm(params, device.launch()));
        }
        return device.Wait();
      }));
  const auto side = static_cast<double>(n);
  return 2 * side * side * side * products / seconds;
}

bool IsMatrix(const ExpectedTensor& tensor) {
  return tensor.shape.size() >= 2 && tensor.shape[tensor.shape.size() - 2] > 1 &&
         !absl::EndsWith(tensor.name, "A_log");
}

double Elements(const ExpectedTensor& tensor) {
  double elements = 1;
  for (const int64_t dim : tensor.shape) elements *= static_cast<double>(dim);
  return elements;
}

// Matrices of the layers, without the embedding and the head.
double LayerMatrixElements(const ModelDescription& model) {
  double sum = 0;
  for (const ExpectedTensor& tensor : ExpectedTensors(model)) {
    if (tensor.name == model.embedding_name || tensor.name == model.head_name) continue;
    if (IsMatrix(tensor)) sum += Elements(tensor);
  }
  return sum;
}

// Operations of one mixer beside its matrices, for `tokens` of one sequence. The Mamba-2 scan in
// chunks of 256, whose products run on matrix units; causal attention.
struct MixerOperations {
  double tokens;
  double operator()(const Mamba1Spec& spec) const {
    return tokens * 9.0 * static_cast<double>(spec.inner * spec.state_dim);
  }
  double operator()(const Mamba2Spec& spec) const {
    constexpr double kChunk = 256;
    const auto n = static_cast<double>(spec.state_dim), p = static_cast<double>(spec.head_dim);
    return tokens * (kChunk * n * static_cast<double>(spec.groups) +
                     static_cast<double>(spec.heads) * (kChunk * p + 4 * n * p));
  }
  double operator()(const AttentionSpec& spec) const {
    return 2 * tokens * tokens * static_cast<double>(spec.heads * spec.head_dim);
  }
  template <typename Other>
  double operator()(const Other&) const {
    return 0;
  }
};

// Read and written: all of a slot, but that recurrent tensors of which tokens may be pending are
// written every few steps. Of those tokens half are there, in the mean, and one is added.
double SlotBytesOfStep(const StateLayout& layout) {
  const double all = 2 * static_cast<double>(layout.slot_bytes());
  if (layout.pending_room == 0) return all;
  double recurrent = 0;
  for (const StateEntry& entry : layout.entries) {
    if (entry.kind == StateKind::kRecurrent) recurrent += static_cast<double>(entry.bytes());
  }
  const double room = layout.pending_room, every = room + 1;
  const double token = static_cast<double>(layout.pending_bytes()) / room;
  return all - recurrent * (1 - 1 / every) + token * (room / 2 + room / every);
}

}  // namespace

absl::StatusOr<Ceilings> MeasureCeilings(Device& device, kernels::DType dtype) {
  const size_t within = device.in_host_memory() ? size_t{64} << 20 : size_t{2} << 30;
  const size_t across = device.in_host_memory() ? size_t{64} << 20 : size_t{256} << 20;
  Ceilings ceilings;
  ANABRANCH_ASSIGN_OR_RETURN(ceilings.copy_bytes, CopyRate(device, CopyDirection::kWithin, within));
  ceilings.copy_bytes *= 2;
  ANABRANCH_ASSIGN_OR_RETURN(ceilings.to_device,
                             CopyRate(device, CopyDirection::kToDevice, across));
  ANABRANCH_ASSIGN_OR_RETURN(ceilings.to_host, CopyRate(device, CopyDirection::kToHost, across));
  ANABRANCH_ASSIGN_OR_RETURN(ceilings.matrix_flops, MatrixRate(device, dtype));
  return ceilings;
}

double DecodeFloorSeconds(const Model& model, kernels::DType dtype, int64_t batch, int64_t context,
                          const Ceilings& ceilings) {
  const ModelDescription& description = model.description();
  const double matrices = LayerMatrixElements(description) +
                          static_cast<double>(description.vocab * description.hidden);
  const StateLayout& layout = model.state_layout();
  const double kv =
      static_cast<double>(layout.kv_page_bytes()) / kKvPageTokens * static_cast<double>(context);
  const double bytes = matrices * static_cast<double>(kernels::ElementBytes(dtype)) +
                       static_cast<double>(batch) * (SlotBytesOfStep(layout) + kv);
  return bytes / ceilings.copy_bytes;
}

double PrefillFloorSeconds(const Model& model, int64_t tokens, const Ceilings& ceilings) {
  const ModelDescription& description = model.description();
  const auto rows = static_cast<double>(tokens);
  double operations = 2 * rows * LayerMatrixElements(description) +
                      2 * static_cast<double>(description.vocab * description.hidden);
  for (const LayerDescription& layer : description.layers) {
    for (const ResidualStep& step : layer.steps) {
      for (const Branch& branch : step.branches) {
        operations += std::visit(MixerOperations{rows}, branch.mixer);
      }
    }
  }
  return operations / ceilings.matrix_flops;
}

}  // namespace anabranch::bench
