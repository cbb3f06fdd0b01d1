// A loaded model: description, packed weights, and the forward pass over one packed batch.
//
// Thread rule: immutable after Load except for its workspace; Forward is called by one thread at a
// time (the engine's). Everything else may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/launch.h"
#include "kernels/sample.h"
#include "kernels/ssd_scan.h"
#include "runtime/device.h"
#include "runtime/load_progress.h"
#include "runtime/model_description.h"
#include "runtime/state_layout.h"
#include "runtime/tensor_file.h"

namespace anabranch {

inline constexpr int kMostStateWriteEvery = kernels::SsdPending::kMost + 1;

struct LoadOptions {
  // kBFloat16: matrices, keys, values and convolution windows are bfloat16, arithmetic is float32.
  // kFloat32 converts bfloat16 weights exactly. Part of the fingerprint.
  kernels::DType dtype = kernels::DType::kFloat32;
  // Of recurrent tensors between steps. kBFloat16 halves the bytes of a state and of decoding large
  // batches, kInt8 (kernels/int8_state.h) nearly halves them again; rounded at random where a step
  // ends (kernels/state_rounding.h): on the CPU, too, bits then depend on how tokens were split
  // into steps. Part of the fingerprint.
  kernels::DType state_dtype = kernels::DType::kFloat32;
  int num_threads = 0;      // 0: one per hardware thread
  LoadProgressFn progress;  // called often while loading; may be null
  // Bytes that the weights may take; 0: what the device has available.
  uint64_t memory_limit = 0;
  std::string device = "cpu";  // see Device::Open. Part of the fingerprint, without the number
  // A sequence that generates may leave Mamba-2's recurrent tensors as they are in most steps and
  // write them at positions that are multiples of this: half the bytes of a step, but measured a
  // gain for some hundred sequences only (docs/GPU.md). 1: at each step.
  // On the CPU, which gains nothing, bits then depend on how tokens were split into steps, and it
  // is part of the fingerprint; on other devices they do anyway.
  int state_write_every = 1;  // at most kMostStateWriteEvery
};

class StepProgress;

// Rows of several sequences, packed; see kernels/launch.h. All spans outlive the call.
struct StepBatch {
  absl::Span<const int32_t> tokens;      // [rows]
  absl::Span<const int32_t> row_start;   // [seqs + 1]
  absl::Span<const int32_t> slots;       // [seqs], distinct
  absl::Span<const int64_t> positions;   // [seqs]: tokens read before this batch
  absl::Span<const int32_t> pages;       // KV pages of all sequences; empty without attention
  absl::Span<const int32_t> page_start;  // [seqs + 1]; empty without attention
  absl::Span<const int32_t> logit_rows;  // rows whose logits are wanted, ascending
  // [logit_rows]: how the token after each is drawn. Read by ForwardAndDraw only.
  absl::Span<const kernels::RowSampling> rules;
  // [seqs], each [hidden] or null: its rows of an inner layer are added, one after the other.
  // Empty: none is wanted.
  absl::Span<float* const> inner_sums;
  // States inside the batch that are to be kept (kernels/checkpoints.h): rows, ascending, and the
  // places of `checkpoint_ring` (arrays of the same layout) that get the state after them.
  absl::Span<const int32_t> checkpoint_rows, checkpoint_places;
  const StateArrays* checkpoint_ring = nullptr;
  // [checkpoints], or empty: none. Not 0: recurrent tensors go there packed, which
  // StateLayout::packs_from allows.
  absl::Span<const uint8_t> checkpoint_packed;
  // Told when the work of a layer is queued, checkpoints included; null: nobody asks.
  StepProgress* progress = nullptr;
  // [checkpoints], each [hidden] or null: set to what its sequence's inner sum is then.
  absl::Span<float* const> checkpoint_sums;
  // [seqs], or empty: none defers. Tokens that are beside the state (StateLayout::pending) before
  // this batch, -1 where the sequence does not defer; and after it: one more, or 0, and all are in
  // the state. One that defers has one row and no checkpoint.
  absl::Span<const int32_t> pending_before, pending_after;
};

// What ForwardAndDraw tells of a row whose logits are wanted.
struct DrawnToken {
  int32_t token = -1;   // -1: the host has to draw it from the logits
  float logprob = 0;    // of the token, before any sampling rule
  bool finite = false;  // whether all logits are
};

class Model {
 public:
  // Reads config.json and the safetensors of `dir`, validates every tensor against the description
  // before allocating, and packs the weights; peak memory is about what the model keeps. Errors:
  // NOT_FOUND (missing file), INVALID_ARGUMENT (names the file, key or tensor and what is
  // expected), DATA_LOSS (damaged file, NaN weights, or changed while it was read),
  // RESOURCE_EXHAUSTED (the weights do not fit into memory; nothing was allocated).
  //
  // The files stay mapped: replace them by renaming, never in place. Truncating one under a process
  // that uses it raises SIGBUS there.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& dir,
                                                     const LoadOptions& options);
  // The same from tensors that are already there. `identity` takes the place of their bytes in the
  // fingerprint.
  static absl::StatusOr<std::unique_ptr<Model>> FromTensors(ModelDescription description,
                                                            TensorFile tensors,
                                                            const LoadOptions& options,
                                                            absl::string_view identity);
  virtual ~Model() = default;

  virtual const ModelDescription& description() const = 0;
  virtual const StateLayout& state_layout() const = 0;
  // Hex SHA-256 over weights, config, tokenizer and the numerics profile.
  virtual const std::string& fingerprint() const = 0;
  // Device kind and numerics, such as "cpu-float32", "cpu-bfloat16-wide" or
  // "cuda-bfloat16-state-bfloat16": states of different profiles are never mixed.
  virtual const std::string& numerics_profile() const = 0;
  // Without the embedding where it is used in the file's mapping.
  virtual size_t weight_bytes() const = 0;
  // Where the model runs, and where the arrays given to Forward lie.
  virtual const std::shared_ptr<Device>& device() const = 0;

  // Runs the batch: updates the sequences' state in `state`, writes logits [logit_rows, vocab] f32.
  virtual absl::Status Forward(const StepBatch& batch, const StateArrays& state,
                               absl::Span<float> logits) = 0;

  // Brings the tokens that are pending of batch.slots into their state: of `batch` only slots,
  // positions and pending_before are read. UNIMPLEMENTED where nothing defers.
  virtual absl::Status Fold(const StepBatch& batch, const StateArrays& state);

  // Whether the calls below are there: logits are made where the host does not see them, so that
  // moving them costs more than drawing tokens on the spot. UNIMPLEMENTED otherwise.
  virtual bool draws_tokens() const { return false; }
  // Forward, but the logits stay on the device until the next step. Tokens below `valid_vocab` are
  // drawn by batch.rules; `drawn` is [logit_rows].
  virtual absl::Status ForwardAndDraw(const StepBatch& batch, const StateArrays& state,
                                      int32_t valid_vocab, absl::Span<DrawnToken> drawn);
  // The logits [rows, vocab] of the last ForwardAndDraw, from row `first` of logit_rows on.
  virtual absl::Status ReadLogits(int64_t first, absl::Span<float> logits);
  // The same, row first + i to to[i] where the model runs.
  virtual absl::Status CopyLogits(int64_t first, absl::Span<float* const> to);
  // The same draw from logits [vocab] that were kept.
  virtual absl::StatusOr<DrawnToken> Draw(absl::Span<const float> logits, int32_t valid_vocab,
                                          const kernels::RowSampling& rule);
};

}  // namespace anabranch
