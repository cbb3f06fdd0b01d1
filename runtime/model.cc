#include "runtime/model.h"

#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/check_batch.h"
#include "runtime/fingerprint.h"
#include "runtime/memory_budget.h"
#include "runtime/model_config.h"
#include "runtime/model_forward.h"
#include "runtime/model_on_device.h"
#include "runtime/tensor_file.h"
#include "runtime/weights.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Counted up whenever a change of code can change the bits of a state on that kind of device.
// CUDA: 2 since steps with attention are recorded for the context that they look at, and Mamba-1
// and the gates sum and divide in another way; 3 since norms of many rows and steps of Mamba-1 sum
// in another order; 4 since the norms of a step of few rows are part of its products.
constexpr int kCpuNumerics = 1, kCudaNumerics = 4;

absl::Status NoDraws() {
  return absl::UnimplementedError("the model does not draw tokens: its logits are on the host");
}

class LoadedModel : public Model {
 public:
  LoadedModel(ModelDescription description, std::string profile, std::shared_ptr<Device> device)
      : description_(std::move(description)),
        profile_(std::move(profile)),
        device_(std::move(device)) {}

  absl::Status LoadWeights(const TensorFile& file, const LoadOptions& options);
  void set_fingerprint(std::string fingerprint) { fingerprint_ = std::move(fingerprint); }

  const ModelDescription& description() const override { return description_; }
  const StateLayout& state_layout() const override { return layout_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& numerics_profile() const override { return profile_; }
  size_t weight_bytes() const override { return forward_->weight_bytes(); }
  const std::shared_ptr<Device>& device() const override { return device_; }

  absl::Status Forward(const StepBatch& batch, const StateArrays& state,
                       absl::Span<float> logits) override {
    ANABRANCH_RETURN_IF_ERROR(CheckBatch(batch, state, layout_, description_.vocab, logits.size()));
    return forward_->Run(batch, state, logits);
  }

  absl::Status Fold(const StepBatch& batch, const StateArrays& state) override {
    ANABRANCH_RETURN_IF_ERROR(CheckFold(batch, state, layout_));
    return forward_->Fold(batch, state);
  }

  bool draws_tokens() const override { return device_->kernels().sample != nullptr; }
  absl::Status ForwardAndDraw(const StepBatch& batch, const StateArrays& state, int32_t valid_vocab,
                              absl::Span<DrawnToken> drawn) override {
    if (!draws_tokens()) return NoDraws();
    const size_t rows = batch.logit_rows.size();
    ANABRANCH_RETURN_IF_ERROR(
        CheckBatch(batch, state, layout_, description_.vocab, rows * description_.vocab));
    if (batch.rules.size() != rows || drawn.size() != rows) {
      return absl::InvalidArgumentError("batch: rules or drawn does not match logit_rows");
    }
    return forward_->RunAndDraw(batch, state, valid_vocab, drawn);
  }
  absl::Status ReadLogits(int64_t first, absl::Span<float> logits) override {
    return draws_tokens() ? forward_->ReadLogits(first, logits) : NoDraws();
  }
  absl::Status CopyLogits(int64_t first, absl::Span<float* const> to) override {
    return draws_tokens() ? forward_->CopyLogits(first, to) : NoDraws();
  }
  absl::StatusOr<DrawnToken> Draw(absl::Span<const float> logits, int32_t valid_vocab,
                                  const kernels::RowSampling& rule) override {
    if (!draws_tokens()) return NoDraws();
    if (static_cast<int64_t>(logits.size()) != description_.vocab) {
      return absl::InvalidArgumentError("logits of another vocabulary");
    }
    return forward_->Draw(logits, valid_vocab, rule);
  }

 private:
  const ModelDescription description_;
  const std::string profile_;
  const std::shared_ptr<Device> device_;
  std::string fingerprint_;
  StateLayout layout_;
  std::unique_ptr<ForwardPass> forward_;
};

absl::Status LoadedModel::LoadWeights(const TensorFile& file, const LoadOptions& options) {
  WeightReader reader(file, options, device_);
  const auto make = [&](const std::string& prefix, const MixerSpec& mixer) {
    return std::visit([&](const auto& spec) { return MakeMixer(spec, prefix, reader); }, mixer);
  };
  ModelWeights weights;
  ANABRANCH_ASSIGN_OR_RETURN(weights.embedding, reader.ReadTable(description_.embedding_name));
  for (size_t layer = 0; layer < description_.layers.size(); ++layer) {
    for (const ResidualStep& described : description_.layers[layer].steps) {
      ModelWeights::Step step;
      step.layer = static_cast<int32_t>(layer);
      ANABRANCH_ASSIGN_OR_RETURN(step.norm, reader.ReadFloats(described.norm));
      for (const Branch& branch : described.branches) {
        ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<Mixer> mixer, make(branch.prefix, branch.mixer));
        mixer->DeclareState(static_cast<int32_t>(layer), layout_);
        step.branches.push_back({std::move(mixer), branch.in_scale, branch.out_scale});
      }
      // After the branches: keys and values come last in a layer.
      for (const ChainStage& described_stage : described.side_chain) {
        ModelWeights::Stage stage;
        if (!described_stage.norm.empty()) {
          ANABRANCH_ASSIGN_OR_RETURN(stage.norm, reader.ReadFloats(described_stage.norm));
        }
        ANABRANCH_ASSIGN_OR_RETURN(stage.mixer,
                                   make(described_stage.prefix, described_stage.mixer));
        stage.mixer->DeclareState(static_cast<int32_t>(layer), layout_);
        step.side_chain.push_back(std::move(stage));
      }
      weights.steps.push_back(std::move(step));
    }
  }
  ANABRANCH_ASSIGN_OR_RETURN(weights.final_norm, reader.ReadFloats(description_.final_norm_name));
  std::string head = description_.tied_head ? description_.embedding_name : description_.head_name;
  head.resize(head.size() - std::string(".weight").size());
  ANABRANCH_ASSIGN_OR_RETURN(weights.head, reader.ReadLinear({head}, false));
  weights.bytes = reader.bytes_read();
  weights.stored = file.owner();
  forward_ =
      std::make_unique<ForwardPass>(description_, std::move(weights), device_, options.dtype);
  return absl::OkStatus();
}

// The bytes of an optional file; empty if it is not there.
absl::StatusOr<std::string> ReadOptional(const std::string& path) {
  auto file = MappedFile::Open(path);
  if (absl::IsNotFound(file.status())) return std::string();
  ANABRANCH_RETURN_IF_ERROR(file.status());
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  return std::string(bytes.begin(), bytes.end());
}

void AddNumerics(absl::string_view profile, FingerprintBuilder& builder) {
  const int version = absl::StartsWith(profile, "cuda") ? kCudaNumerics : kCpuNumerics;
  builder.Add("numerics", absl::StrCat(profile, "/", version));
}

absl::StatusOr<std::string> Fingerprint(const TensorFile& tensors, absl::string_view config,
                                        absl::string_view tokenizer, absl::string_view profile,
                                        const LoadProgressFn& progress) {
  FingerprintBuilder builder;
  AddNumerics(profile, builder);
  builder.Add("config.json", config);
  builder.Add("tokenizer.json", tokenizer);
  LoadProgress hashed{"hashing weights"};
  for (const auto& file : tensors.files()) {
    hashed.total += static_cast<int64_t>(file->bytes().size());
  }
  for (const auto& file : tensors.files()) {
    builder.Add("tensors", file->bytes(), [&](size_t bytes) {
      hashed.done += static_cast<int64_t>(bytes);
      if (progress != nullptr) progress(hashed);
    });
  }
  return builder.Finish();
}

// "wide": only matrices and what is kept between tokens are bfloat16, not what flows between
// kernels.
std::string ProfileOf(const Device& device, const LoadOptions& options) {
  const auto is_half = [](kernels::DType dtype) { return dtype == kernels::DType::kBFloat16; };
  const char* numerics = "-float32";
  if (is_half(options.dtype)) {
    const bool wide = !is_half(device.activations(options.dtype));
    numerics = wide ? "-bfloat16-wide" : "-bfloat16";
  }
  const char* state = is_half(options.state_dtype)                   ? "-state-bfloat16"
                      : options.state_dtype == kernels::DType::kInt8 ? "-state-int8"
                                                                     : "";
  std::string profile = absl::StrCat(device.kind(), numerics, state);
  // Where states do not depend on how tokens were split into steps, deferring would make them.
  if (device.in_host_memory() && options.state_write_every > 1) {
    absl::StrAppend(&profile, "-written-every-", options.state_write_every);
  }
  return profile;
}

// Before anything is allocated for the weights.
absl::Status CheckWeightsFit(const TensorFile& tensors, const ModelDescription& model,
                             const LoadOptions& options, const Device& device) {
  MemoryBudget budget{options.memory_limit, "the configured limit"};
  if (options.memory_limit == 0) {
    auto available = device.AvailableMemory();
    if (!available.ok()) return absl::OkStatus();  // the allocation itself will tell
    budget = *std::move(available);
  }
  std::string advice = "use a machine with more memory or a smaller model";
  if (options.dtype == kernels::DType::kFloat32) {
    const uint64_t half = EstimateWeightBytes(tensors, kernels::DType::kBFloat16, model);
    advice = absl::StrCat("serve with --dtype bfloat16, which needs ", HumanMemory(half), ", or ",
                          advice);
  }
  return CheckMemory("the weights", EstimateWeightBytes(tensors, options.dtype, model), budget,
                     advice);
}

// All but the fingerprint.
absl::StatusOr<std::unique_ptr<LoadedModel>> Build(ModelDescription description,
                                                   TensorFile& tensors, const LoadOptions& options,
                                                   std::shared_ptr<Device> device) {
  if (options.state_write_every < 1 || options.state_write_every > kMostStateWriteEvery) {
    return absl::InvalidArgumentError(
        absl::StrCat("states are written every 1 to ", kMostStateWriteEvery, " steps"));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckTensors(tensors, description));
  const std::string profile = ProfileOf(*device, options);
  auto model = std::make_unique<LoadedModel>(std::move(description), profile, std::move(device));
  ANABRANCH_RETURN_IF_ERROR(
      CheckWeightsFit(tensors, model->description(), options, *model->device()));
  ANABRANCH_RETURN_IF_ERROR(model->LoadWeights(tensors, options));
  return model;
}

}  // namespace

absl::Status Model::Fold(const StepBatch&, const StateArrays&) {
  return absl::UnimplementedError("the model's states are written at every step");
}
absl::Status Model::ForwardAndDraw(const StepBatch&, const StateArrays&, int32_t,
                                   absl::Span<DrawnToken>) {
  return NoDraws();
}
absl::Status Model::ReadLogits(int64_t, absl::Span<float>) { return NoDraws(); }
absl::Status Model::CopyLogits(int64_t, absl::Span<float* const>) { return NoDraws(); }
absl::StatusOr<DrawnToken> Model::Draw(absl::Span<const float>, int32_t,
                                       const kernels::RowSampling&) {
  return NoDraws();
}

absl::StatusOr<std::unique_ptr<Model>> Model::FromTensors(ModelDescription description,
                                                          TensorFile tensors,
                                                          const LoadOptions& options,
                                                          absl::string_view identity) {
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<Device> device,
                             Device::Open(options.device, options.num_threads));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<LoadedModel> model,
                             Build(std::move(description), tensors, options, std::move(device)));
  FingerprintBuilder builder;
  AddNumerics(model->numerics_profile(), builder);
  builder.Add("identity", identity);
  ANABRANCH_ASSIGN_OR_RETURN(std::string fingerprint, builder.Finish());
  model->set_fingerprint(std::move(fingerprint));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const std::string& dir,
                                                   const LoadOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<Device> device,
                             Device::Open(options.device, options.num_threads));
  return LoadModelOn(std::move(device), dir, options);
}

absl::StatusOr<std::unique_ptr<Model>> LoadModelOn(std::shared_ptr<Device> device,
                                                   const std::string& dir,
                                                   const LoadOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(const auto config_file, MappedFile::Open(dir + "/config.json"));
  const std::string config(config_file->bytes().begin(), config_file->bytes().end());
  ANABRANCH_ASSIGN_OR_RETURN(const std::string generation,
                             ReadOptional(dir + "/generation_config.json"));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string tokenizer, ReadOptional(dir + "/tokenizer.json"));
  auto description = ParseModelConfig(config, generation);
  if (!description.ok()) {
    return absl::Status(description.status().code(),
                        absl::StrCat(dir, ": ", description.status().message()));
  }
  ANABRANCH_ASSIGN_OR_RETURN(TensorFile tensors, TensorFile::OpenModel(dir));
  auto model = Build(*std::move(description), tensors, options, std::move(device));
  if (!model.ok()) {
    return absl::Status(model.status().code(), absl::StrCat(dir, ": ", model.status().message()));
  }
  ANABRANCH_ASSIGN_OR_RETURN(
      std::string fingerprint,
      Fingerprint(tensors, config, tokenizer, (*model)->numerics_profile(), options.progress));
  for (const auto& file : tensors.files()) ANABRANCH_RETURN_IF_ERROR(file->CheckUnchanged());
  (*model)->set_fingerprint(std::move(fingerprint));
  return *std::move(model);
}

}  // namespace anabranch
