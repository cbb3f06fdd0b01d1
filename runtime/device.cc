#include "runtime/device.h"

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/cuda_device.h"
#include "runtime/tensor_memory.h"

namespace anabranch {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int num_threads) : parallel_(num_threads) {}

  const char* kind() const override { return "cpu"; }
  bool in_host_memory() const override { return true; }
  kernels::DType activations(kernels::DType) const override { return kernels::DType::kFloat32; }
  const kernels::KernelSet& kernels() const override { return kernels::CpuKernels(); }
  kernels::Launch launch() const override { return {.parallel = &parallel_}; }
  absl::StatusOr<MemoryBudget> AvailableMemory() const override {
    return anabranch::AvailableMemory();
  }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return Buffer::Allocate(bytes); }
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override { return Buffer::Allocate(bytes); }
  absl::Status Copy(CopyDirection, absl::Span<const CopyPart> parts) override {
    for (const CopyPart& part : parts) std::memcpy(part.to, part.from, part.bytes);
    return absl::OkStatus();
  }
  absl::Status Queue(CopyDirection direction, const CopyPart& part) override {
    return Copy(direction, {part});
  }
  absl::Status CopyBeside(CopyDirection direction, absl::Span<const CopyPart> parts) override {
    return Copy(direction, parts);
  }
  absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) override {
    for (const absl::Span<uint8_t>& block : blocks) std::memset(block.data(), byte, block.size());
    return absl::OkStatus();
  }

  absl::Status Replay(int64_t, absl::FunctionRef<absl::Status()> work) override { return work(); }
  void ForgetReplays() override {}
  absl::Status Wait() override { return absl::OkStatus(); }

 private:
  const TorchParallel parallel_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> Device::Open(absl::string_view name, int num_threads) {
  if (name == "cpu") return std::make_shared<CpuDevice>(num_threads);
  int ordinal = 0;
  absl::string_view number = name;
  const bool cuda = absl::ConsumePrefix(&number, "cuda") &&
                    (number.empty() || (absl::ConsumePrefix(&number, ":") &&
                                        absl::SimpleAtoi(number, &ordinal) && ordinal >= 0));
  if (!cuda) {
    return absl::InvalidArgumentError(
        absl::StrCat("device '", name, "' is not one of cpu, cuda and cuda:N"));
  }
  return OpenCudaDevice(ordinal);
}

}  // namespace anabranch
