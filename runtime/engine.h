// The engine: one scheduling thread that owns the model. Work arrives in a bounded queue; every
// step runs one decode row for each generating sequence plus bounded chunks of reading, so that
// long reads never starve running streams. Cancellation and deadlines take effect within one step.
//
// Thread rule: every member may be called from any thread. Callbacks run on the engine's threads,
// one at a time for a work, and must not block; they may submit further work. Because kernels are
// row-invariant (kernels/launch.h) the batching never changes a result.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/model.h"
#include "runtime/sampler.h"
#include "runtime/state_image.h"

namespace anabranch {

// A live context: a slot, the tokens read and the logits after the last one. Opaque; dropping the
// last reference releases the slot (after the work in flight has ended).
class Sequence;
using SequencePtr = std::shared_ptr<Sequence>;

struct WorkStats {
  int64_t tokens_read = 0;       // prompt tokens run through the model
  int64_t tokens_generated = 0;  // sampled tokens, all of which were also read
  absl::Duration queue_time, compute_time;
};

// Shared by the submitter and the engine; Cancel() may be called at any time.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

struct WorkOptions {
  absl::Time deadline = absl::InfiniteFuture();  // DEADLINE_EXCEEDED within one step
  std::shared_ptr<CancelToken> cancel;           // may be null. CANCELLED within one step
};

// Called after each step that advanced the sequence: the tokens now part of it, and its length.
using OnProgress = std::function<void(absl::Span<const int32_t> tokens, int64_t position)>;
// Called with the state at each position of the checkpoint grid, in order, after the progress (and
// the token) that led there, on a thread of the engine's own: the sequence may have gone on
// meanwhile. Not called where the work ends. An error is that capture's alone.
using OnCheckpoint = std::function<void(int64_t position, absl::StatusOr<StateImage> image)>;
// Called once, last, when all captures were reported. The sequence is idle and valid at its current
// position whatever the status, unless the step itself failed (INTERNAL or the model's status):
// then it may only be dropped.
using OnDone = std::function<void(absl::Status status, const WorkStats& stats)>;

struct ReadWork {
  SequencePtr sequence;
  std::vector<int32_t> tokens;
  WorkOptions options;
  int64_t checkpoint_every = 0;  // absolute grid; 0: none. The end of the work is never reported
  StateCodec checkpoint_codec = StateCodec::kExact;  // of the images that are reported
  OnProgress on_progress;
  OnCheckpoint on_checkpoint;
  OnDone on_done;
};

enum class FinishReason : uint8_t { kNone, kStopToken, kStopped, kMaxTokens, kContextLimit };

struct GeneratedToken {
  SampledToken sampled;
  int64_t position = 0;     // index of the token in the sequence
  bool stop_token = false;  // one of GenerateWork::stop_tokens: the last one
};

struct GenerateWork {
  SequencePtr sequence;  // must have read at least one token
  int64_t max_tokens = 256;
  SamplingParams sampling;
  std::vector<int32_t> stop_tokens;
  WorkOptions options;
  int64_t checkpoint_every = 0;
  StateCodec checkpoint_codec = StateCodec::kExact;
  // Called after the token was read, right after its on_progress. Return false to stop after this
  // token (which stays part of the sequence, like a stop token).
  std::function<bool(const GeneratedToken&)> on_token;
  OnProgress on_progress;
  OnCheckpoint on_checkpoint;
  std::function<void(absl::Status, const WorkStats&, FinishReason)> on_done;
};

struct ScoreWork {
  SequencePtr sequence;  // usually a fork: it advances over the tokens
  std::vector<int32_t> tokens;
  WorkOptions options;
  std::function<void(absl::Status, const WorkStats&, std::vector<float> logprobs)> on_done;
};

struct EngineOptions {
  SlotPool::Options slots;
  int32_t max_prefill_rows = 512;           // reading rows a step when nothing is generating
  int32_t max_prefill_rows_decoding = 128;  // and when something is
  int32_t max_decode_rows = 64;             // generating sequences beyond it take turns
  int32_t max_score_rows = 128;             // of the reading rows: bounds the memory for logits
  int32_t max_queue = 1024;                 // works not yet begun; RESOURCE_EXHAUSTED beyond it
  int64_t max_context_tokens = 131072;      // INVALID_ARGUMENT for reads beyond it
  int32_t valid_vocab = 0;                  // ids the sampler may choose; 0: the model's vocabulary
  int32_t capture_places = 0;               // states on their way off the device; 0: by its memory

  // INVALID_ARGUMENT says which is out of range for a model with such a vocabulary.
  absl::Status Validate(int64_t vocab) const;
};

struct EngineStats {
  int64_t steps = 0, rows = 0, tokens_read = 0, tokens_generated = 0;
  int32_t queued = 0, running = 0;
  absl::Duration busy;
  SlotPool::Usage slots;
};

// Of an engine that is part of another: see engine_group.h.
struct MemberStats {
  std::string device;
  EngineStats stats;
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::shared_ptr<Model> model,
                                                        const EngineOptions& options);
  // Finishes the running step; work in flight ends with CANCELLED. Not from a callback.
  virtual ~Engine() = default;

  virtual absl::StatusOr<SequencePtr> NewSequence() = 0;
  // Shares the state, copied on the first write of either. FAILED_PRECONDITION while it is busy.
  virtual absl::StatusOr<SequencePtr> Fork(const SequencePtr& sequence) = 0;
  // Whether Restore takes an image of this form; others are decoded first (state_codec.h).
  virtual bool Restores(const StateHeader& header) const = 0;
  // At least `bytes` for the payload of an image to restore: memory that the device copies from at
  // full speed, and that is used again once the payload is gone. RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<Buffer> PayloadMemory(size_t bytes) const = 0;
  // `tokens`: the full history behind the image (for penalties); must have header.token_count.
  virtual absl::StatusOr<SequencePtr> Restore(const StateImage& image,
                                              std::vector<int32_t> tokens) = 0;
  // FAILED_PRECONDITION while the sequence is busy.
  virtual absl::StatusOr<StateImage> Capture(const SequencePtr& sequence,
                                             StateCodec codec = StateCodec::kExact) = 0;

  // A refused submission calls nothing; the status says why: INVALID_ARGUMENT (bad input),
  // FAILED_PRECONDITION (sequence busy, broken or without logits), RESOURCE_EXHAUSTED (queue full).
  // A read of no tokens is done at once. Slots or KV pages running out end one work with
  // RESOURCE_EXHAUSTED and leave its sequence intact.
  virtual absl::Status Submit(ReadWork work) = 0;
  virtual absl::Status Submit(GenerateWork work) = 0;
  virtual absl::Status Submit(ScoreWork work) = 0;

  // Valid while the sequence is idle.
  virtual int64_t Position(const SequencePtr& sequence) const = 0;
  virtual const std::vector<int32_t>& Tokens(const SequencePtr& sequence) const = 0;
  virtual absl::Span<const float> LastLogits(const SequencePtr& sequence) const = 0;

  // Sum over all tokens of the direction of an inner layer's residual: what the embedding of a
  // state is made of. Empty: not known.
  virtual absl::Span<const float> InnerSum(const SequencePtr& sequence) const = 0;

  // Whether it went on from a state in a lossy codec.
  virtual StateOrigin Origin(const SequencePtr& sequence) const = 0;

  virtual const Model& model() const = 0;
  virtual EngineStats stats() const = 0;
  // UNAVAILABLE for good once the device is lost; so ends and is refused all work from then on.
  virtual absl::Status health() const = 0;

  // Of a group: its engines, and the one whose slots and pages the sequence lives in. Else none,
  // and this.
  virtual std::vector<MemberStats> member_stats() const { return {}; }
  virtual const Engine& HomeOf(const SequencePtr& /*sequence*/) const { return *this; }
};

}  // namespace anabranch
